// Risk of a scope: the headline of each of the eight models, and the five largest contributors of a metric.
import * as fmt from "./fmt.js";

const NAMES = { var_hist: "Historical VaR", var_mc: "Monte Carlo VaR", greeks: "Greeks", factor: "Factor", liquidity: "Liquidity",
  concentration: "Concentration", leverage: "Leverage", drawdown: "Drawdown" };
const SHARES = new Set(["hhi", "gross", "since_inception"]);

function cells(row, values) {
  row.replaceChildren(...values.map(([text, cls]) => { const td = document.createElement("td"); td.textContent = text; if (cls) td.className = cls; return td; }));
}

export class RiskPanel {
  constructor(models, top, expiries, select, note, said) {
    Object.assign(this, { models: models.tBodies[0], top: top.tBodies[0], expiries, select, note, said, last: null });
    select.addEventListener("change", () => this.showTop());
  }

  clear() { this.last = null; this.models.replaceChildren(); this.top.replaceChildren(); this.note.textContent = ""; this.say(""); }

  // in words, where a scope has no models (yet)
  say(text) {
    this.said.textContent = text; this.said.hidden = !text;
    for (const part of [this.models.parentElement, this.top.parentElement, this.select.closest(".title")]) part.hidden = !!text;
  }

  show(data) {
    this.last = data;
    this.say("");
    this.models.replaceChildren(...data.models.map((m) => {
      const tr = document.createElement("tr"), digits = SHARES.has(m.metric) && m.m !== "greeks" ? 4 : 0;
      tr.dataset.model = m.m; tr.title = JSON.stringify(m.detail, null, 1);
      cells(tr, [[NAMES[m.m] || m.m], [fmt.number(m.v, digits)], [fmt.number(m.prev, digits)], [m.metric.replaceAll("_", " "), "text"],
        [m.q + (m.missing ? ` (${m.missing})` : ""), m.q === "good" ? "" : m.q]]);
      return tr;
    }));
    const ladder = Object.entries(data.models.find((m) => m.m === "greeks")?.detail.by_expiry || {}).filter(([, g]) => g.gamma || g.vega);
    this.expiries.hidden = !ladder.length;
    this.expiries.tBodies[0].replaceChildren(...ladder.map(([expiry, g]) => {
      const tr = document.createElement("tr");
      cells(tr, [[expiry], [fmt.number(g.gamma, 0)], [fmt.number(g.vega, 0)]]);
      return tr;
    }));
    const metrics = Object.keys(data.top), chosen = this.select.value || "var_hist";
    if (this.select.options.length !== metrics.length) {
      this.select.replaceChildren(...metrics.map((k) => { const o = document.createElement("option"); o.value = k; o.textContent = k.replaceAll("_", " "); return o; }));
      this.select.value = metrics.includes(chosen) ? chosen : metrics[0];
    }
    this.showTop();
  }

  showTop() {
    if (!this.last) return;
    this.top.replaceChildren(...(this.last.top[this.select.value] || []).map((t) => {
      const tr = document.createElement("tr");
      cells(tr, [[t.label], [fmt.number(t.value, 0)], [t.share === null ? "" : `${fmt.number(100 * t.share, 1)} %`],
        [t.prior_day === null ? "" : fmt.number(t.value - t.prior_day, 0)]]);
      return tr;
    }));
  }

  age() { if (this.last) this.note.textContent = `${this.last.ccy}, ${fmt.age(Date.now() - this.last.t)} old`; }
}
