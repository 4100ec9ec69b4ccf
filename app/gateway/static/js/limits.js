// The limits of a scope: what each is held against now, how much of it is used, how it stands; the tightest first.
import * as fmt from "./fmt.js";

const EVERY_MS = 2000;
const figure = (v) => (v !== null && Math.abs(v) < 1000 && !Number.isInteger(v) ? fmt.number(v, Math.abs(v) < 10 ? 3 : 1) : fmt.short(v));

export class LimitTable {
  constructor(table, scope) {
    Object.assign(this, { table, scope });
    setInterval(() => { if (document.visibilityState === "visible") this.load(); }, EVERY_MS);
  }

  clear() { this.table.hidden = true; this.table.tBodies[0].replaceChildren(); }

  async load() {
    const scope = this.scope();
    const reply = await fetch(`/api/limits?scope=${encodeURIComponent(scope)}`).catch(() => null);
    if (!reply || !reply.ok) { this.table.classList.add("old"); return; }
    const { limits } = await reply.json();
    if (scope !== this.scope()) return;
    this.table.classList.remove("old");
    const held = limits.filter((x) => x.in_force).sort((x, y) => (y.utilisation ?? -1) - (x.utilisation ?? -1));
    this.table.hidden = !held.length;
    this.table.tBodies[0].replaceChildren(...held.map((x) => this.row(x)));
  }

  row(x) {
    const tr = document.createElement("tr"), window = x.window_ms ? ` in ${fmt.number(x.window_ms / 1000, x.window_ms % 1000 ? 1 : 0)} s` : "";
    const state = { breach: "■ breach", approach: "▲ approach", unknown: "unknown", ok: x.partial ? "partial" : "" }[x.state];
    tr.title = `${x.limit_id}, version ${x.version} by ${x.by}: ${x.reason}${x.until ? `; until ${x.until}` : ""}`;
    tr.dataset.limit = x.limit_id; tr.dataset.state = x.state;
    const texts = [`${x.metric.replaceAll("_", " ")}${window}${x.instrument ? ` ${x.instrument}` : ""}${x.mode === "soft" ? ", soft" : ""}${x.until ? ", for a while" : ""}`,
      figure(x.value), figure(Number(x.limit)), x.utilisation === null ? fmt.DASH : `${fmt.number(100 * x.utilisation, 0)} %`, state];
    for (const text of texts) { const td = document.createElement("td"); td.textContent = text; tr.append(td); }
    return tr;
  }
}
