// What was not applied: how many records wait by topic and reason, and the newest of them, with what to do about each.
import * as fmt from "./fmt.js";

const EVERY_MS = 5000, SHOWN = 20;

function cell(text, title) {
  const td = document.createElement("td");
  td.className = "text"; td.textContent = text;
  if (title) td.title = title;
  return td;
}

export class QuarantinePanel {
  // panel: a <details> with a note in its summary and a table; may: () => whether who looks on may see it
  constructor(panel, may) {
    Object.assign(this, { panel, may, note: panel.querySelector(".note"), table: panel.querySelector("table") });
    panel.addEventListener("toggle", () => { if (panel.open) this.load(); });
    setInterval(() => { if (document.visibilityState === "visible") this.load(); }, EVERY_MS);
  }

  async load() {
    this.panel.hidden = !this.may();
    if (this.panel.hidden) return;
    const reply = await fetch(`/api/quarantine?limit=${SHOWN}`).catch(() => null);
    this.table.classList.toggle("old", !reply || !reply.ok);
    if (!reply || !reply.ok) { this.note.textContent = "not known now"; return; }
    const { waiting, records } = await reply.json();
    const total = waiting.reduce((sum, x) => sum + x.count, 0);
    this.note.textContent = total ? `${fmt.number(total, 0)} records were not applied` : "all records were applied";
    this.note.classList.toggle("down", total > 0);
    if (!this.panel.open) return;
    const counts = waiting.map((x) => this.row([`${x.topic}: ${x.reason}`, fmt.number(x.count, 0), x.meaning, ""]));
    const rows = records.map((x) => this.row([x.id, { waits: "waits", again: "refused again", retried: "brought back" }[x.state], x.detail,
      x.state === "retried" ? `by ${x.retried_by}: ${x.retried_why}` : x.what_to_do]));
    this.table.tBodies[0].replaceChildren(...counts, ...rows);
  }

  row(texts) {
    const tr = document.createElement("tr");
    tr.append(...texts.map((text) => cell(text.length > 160 ? `${text.slice(0, 159)}…` : text, text)));
    return tr;
  }
}
