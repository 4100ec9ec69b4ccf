// Alerts: one line for each limit that stands or stood, what nobody has seen first; what a person may do about it.
import * as fmt from "./fmt.js";
import { post } from "./post.js";

const SHOWN = 100;
const MARKS = { breach: "■", approach: "▲", stale: "▲", soft: "▲", override: "◆", barrier: "◆", reconciliation: "▲" };
const LASTS = new Set(["approach", "breach", "stale", "reconciliation", "worker_down", "clear"]);

const place = (a) => [LASTS.has(a.kind) ? "" : a.kind, a.limit_id || a.aid, a.node, a.metric].join("|");
const open = (a) => a.state === "raised";

export class AlertPanel {
  // may: () => whether who looks on may write; override: opens the form for a limit; said: told what went wrong
  constructor(list, assertive, may, override, said) {
    Object.assign(this, { list, assertive, may, override, said, alerts: new Map(), spoken: 0, due: false });
  }

  // what stands comes again with a snapshot; what cleared stays listed
  reset() { for (const [at, a] of this.alerts) if (a.state !== "cleared") this.alerts.delete(at); }

  take(a) {
    const at = place(a), held = this.alerts.get(at);
    if (held && held.raised_t > a.raised_t && held.aid !== a.aid) return;
    this.alerts.delete(at);
    this.alerts.set(at, a);
    if (a.kind === "breach" && open(a) && Date.now() - this.spoken > 2000) {
      this.assertive.textContent = this.text(a);
      this.spoken = Date.now();
    }
    if (!this.due) { this.due = true; requestAnimationFrame(() => { this.due = false; this.draw(); }); }
  }

  unseen() { return [...this.alerts.values()].filter(open).length; }

  text(a) {
    const unit = (a.limit_id || "").startsWith("feed.") ? " s" : ""; // a feed is silent for so long
    const value = a.value === null ? (a.limit === null ? "" : " not known") : ` ${fmt.number(a.value, 2)}${unit}`;
    const bound = a.limit === null ? "" : ` (limit ${fmt.number(a.limit, 2)}${unit})`;
    return `${a.escalated ? "ESCALATED " : ""}${a.kind} ${a.node} ${a.metric}${value}${bound}`;
  }

  draw() {
    const found = [...this.alerts.values()].reverse().sort((x, y) => open(y) - open(x) || y.raised_t - x.raised_t);
    while (found.length > SHOWN) this.alerts.delete(place(found.pop()));
    this.list.replaceChildren(...found.map((a) => this.item(a)));
    const unseen = this.unseen();
    document.title = unseen ? `(${unseen}!) deskrisk` : "deskrisk";
  }

  item(a) {
    const item = document.createElement("li"), text = document.createElement("span"), more = document.createElement("small");
    item.className = a.kind; item.dataset.state = a.state; item.dataset.aid = a.aid;
    text.textContent = `${a.state === "cleared" ? "✓" : MARKS[a.kind] || "●"} ${this.text(a)}`;
    more.className = "muted";
    more.textContent = [new Date(a.raised_t).toLocaleTimeString("en-GB"), `${a.raised_t - a.cause_t} ms after its cause`,
      a.ack ? `seen by ${a.ack}` : "", a.note || ""].filter(Boolean).join(", ");
    item.append(text, " ", more);
    if (this.may() && open(a)) item.append(...this.buttons(a));
    return item;
  }

  buttons(a) {
    if (a.aid.startsWith("approval.")) {
      const where = `/api/approvals/${encodeURIComponent(a.aid.slice("approval.".length))}`;
      return [this.button("Approve", () => post(where, {})), this.button("Refuse", () => post(where, { refuse: true }))];
    }
    const found = [this.button("Acknowledge", () => post(`/api/alerts/${encodeURIComponent(a.aid)}/ack`, {}))];
    if (a.kind === "breach" && a.limit_id) found.push(this.button("Override …", () => this.override(a)));
    return found;
  }

  button(title, act) {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = title;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try { await act(); this.said(""); } catch (error) { this.said(`${title}: ${error.message}`); button.disabled = false; }
    });
    return button;
  }
}
