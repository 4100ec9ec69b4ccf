// Writes: who signed in is known by a cookie that scripts cannot read. The page changes when the write comes back.
export async function post(path, body) {
  const reply = await fetch(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(answer.error || answer.detail || `${reply.status} ${reply.statusText}`);
  return answer;
}
