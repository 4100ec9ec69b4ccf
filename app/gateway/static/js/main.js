// The page: header strip, position ladder of a scope, desk blotter, P&L line, alerts. The URL holds the scope.
import { AlertPanel } from "./alerts.js";
import { Breakers } from "./breakers.js";
import * as fmt from "./fmt.js";
import { Grid } from "./grid.js";
import { LimitTable } from "./limits.js";
import { OverrideForm } from "./override.js";
import { QuarantinePanel } from "./quarantine.js";
import { RiskPanel } from "./risk.js";
import { Stream } from "./stream.js";

const $ = (id) => document.getElementById(id);
const CHART_POINTS = 1200, REJECTS_SHOWN = 100;
const HEAD = ["head-day", "head-upnl", "head-gross", "head-net", "head-var"];
const state = { scope: "", nodes: new Map(), staleMs: 1500,
  chart: null, xs: [], ys: [], roles: [], rejects: 0, earlier: 0, levels: ["book", "desk", "strategy", "fund", "firm"], total: 0 };

// who looks on: a page begins at the first node that may be read
const me = await fetch("/api/me").then((r) => (r.ok ? r.json() : null)).catch(() => null) || { home: "firm", nodes: ["firm"] };

const may = () => state.roles.includes("risk");
const breakers = new Breakers($("breakers"), $("state-dialog"), may);
const override = new OverrideForm($("override-dialog"));
const alerts = new AlertPanel($("alerts"), $("assertive"), may, (alert) => override.open(alert), (text) => {
  $("alert-said").textContent = text; $("alert-said").hidden = !text;
});
const limits = new LimitTable($("limits"), () => state.scope);
const quarantine = new QuarantinePanel($("data"), may);
const risk = new RiskPanel($("models"), $("top"), $("expiries"), $("metric-select"), $("risk-note"), $("risk-said"));
const ladder = new Grid($("ladder"), [
  { key: "inst", title: "instrument", width: 128, text: true },
  { key: "book", title: "book", width: 130, text: true },
  { key: "qty", title: "quantity", width: 120, format: fmt.quantity, flash: true },
  { key: "avg", title: "average", width: 96, format: fmt.price, dep: true, help: "average price of the open quantity" },
  { key: "mid", title: "mid", width: 96, format: fmt.price, flash: true, dep: true },
  { key: "mv", title: "value", width: 116, format: (v) => fmt.number(v, 0), dep: true, help: "market value, firm base currency" },
  { key: "upnl", title: "unrealised", width: 108, format: (v) => fmt.signed(v, 0), tone: fmt.tone, flash: true, dep: true, help: "in the currency of the last column" },
  { key: "rpnl", title: "realised", width: 100, format: (v) => fmt.signed(v, 0), tone: fmt.tone, flash: true },
  { key: "fees", title: "fees", width: 80, format: (v) => fmt.number(v, 0), help: "firm base currency" },
  { key: "ccy", title: "ccy", width: 56, text: true },
  { key: "delta", title: "delta", width: 100, format: (v) => fmt.number(v, 0), dep: true, help: "cash delta, firm base currency" },
  { key: "gamma", title: "gamma", width: 84, format: (v) => fmt.number(v, 0), dep: true, help: "change of cash delta for a move of 1 %" },
  { key: "vega", title: "vega", width: 84, format: (v) => fmt.number(v, 0), dep: true, help: "P&L of one volatility point" },
  { key: "theta", title: "theta", width: 84, format: (v) => fmt.number(v, 0), dep: true, help: "P&L of one calendar day" },
], { label: "Position ladder", sort: { key: "mv", dir: -1 } });

const blotter = new Grid($("blotter"), [
  { key: "name", title: "node", width: 150, text: true },
  { key: "day", title: "day P&L", width: 108, format: (v) => fmt.signed(v, 0), tone: fmt.tone, flash: true },
  { key: "unrealised", title: "unrealised", width: 108, format: (v) => fmt.signed(v, 0), tone: fmt.tone },
  { key: "realised", title: "realised", width: 100, format: (v) => fmt.signed(v, 0), tone: fmt.tone },
  { key: "gross", title: "gross", width: 124, format: (v) => fmt.number(v, 0) },
  { key: "net", title: "net", width: 116, format: (v) => fmt.number(v, 0), flash: true },
  { key: "var_99", title: "VaR 99", width: 100, format: (v) => fmt.number(v, 0), help: "historical, one day, exact after every trade" },
  { key: "delta", title: "delta", width: 110, format: (v) => fmt.number(v, 0), help: "cash delta" },
  { key: "gamma", title: "gamma 1%", width: 90, format: (v) => fmt.number(v, 0), help: "change of cash delta for a move of 1 %" },
  { key: "vega", title: "vega", width: 84, format: (v) => fmt.number(v, 0), help: "per volatility point" },
  { key: "theta", title: "theta", width: 84, format: (v) => fmt.number(v, 0), help: "per calendar day" },
  { key: "rho", title: "rho", width: 84, format: (v) => fmt.number(v, 0), help: "per basis point" },
  { key: "long", title: "long", width: 124, format: (v) => fmt.number(v, 0) },
  { key: "short", title: "short", width: 124, format: (v) => fmt.number(v, 0) },
  { key: "positions", title: "pos", width: 60, format: (v) => fmt.number(v, 0) },
  { key: "quality", title: "excludes", width: 110, text: true },
  { key: "ccy", title: "ccy", width: 56, text: true },
], { label: "Desk blotter", sort: { key: "gross", dir: -1 }, total: true, onOpen: (row) => row && go(row.id) });

function records(body) { return body.rows.map((values) => Object.fromEntries(body.cols.map((c, i) => [c, values[i]]))); }

function apply(body) {
  if (body.table === "position") {
    if (body.reset) ladder.clear();
    for (const row of records(body)) { row.search = `${row.inst} ${row.book}`.toLowerCase(); ladder.set(row); }
    for (const id of body.del || []) ladder.remove(id);
    if (body.total !== undefined) state.total = body.total;
    ladder.empty.textContent = ladder.filter ? `No match for '${ladder.filter}'. Clear the filter (Esc).` : `No positions in ${state.scope}.`;
    note();
  } else if (body.table === "node") {
    if (body.reset) { state.nodes.clear(); blotter.clear(); alerts.reset(); breakers.reset(); }
    for (const row of records(body)) state.nodes.set(row.id, row);
    for (const id of body.del || []) { state.nodes.delete(id); blotter.remove(id); }
    showNodes(records(body));
  }
}

// where no numbers can come, the panel says why
function modelsSaid(levels) {
  const level = state.scope.split(":")[0];
  return levels.includes(level) ? `${state.scope} is not measured yet.`
    : `The eight models are measured for each ${levels.slice(0, -1).join(", ")} and the firm. Of ${state.scope} there are positions, P&L, exposure and Greeks, above.`;
}

function rejectsSaid() {
  if (!state.rejects && !state.earlier) return;
  const shown = Math.min(state.rejects, REJECTS_SHOWN);
  $("reject-note").textContent = [state.rejects > shown ? `${shown} shown of ${fmt.number(state.rejects, 0)} of late` : `${fmt.number(state.rejects, 0)} of late`,
    state.earlier ? `${fmt.number(state.earlier, 0)} earlier alerts and rejects not sent` : ""].filter(Boolean).join(", ");
}

function note() {
  const shown = ladder.rows.size;
  $("ladder-note").textContent = state.total > shown ? `${fmt.number(shown, 0)} of ${fmt.number(state.total, 0)} lines, largest first` : `${fmt.number(shown, 0)} lines`;
}

function decorate(row) {
  row.name = row.id.includes(":") ? row.id.slice(row.id.indexOf(":") + 1) : row.id;
  row.search = row.id.toLowerCase();
  row.quality = row.without_rate ? `no rate of ${row.without_rate}` : row.unpriced ? `${row.unpriced} unpriced`
    : row.pnl_unknown ? `${row.pnl_unknown} without P&L` : row.stale ? `${row.stale} stale` : "";
  return row;
}

function showNodes(rows) {
  const level = $("level-select").value;
  for (const row of rows) if (row.level === level && row.id !== "firm") blotter.set(decorate({ ...row }));
  const whole = state.nodes.get(me.home);
  if (whole) blotter.setTotal(decorate({ ...whole }));
  const own = state.nodes.get(state.scope);
  if (own) {
    for (const [id, key, signed] of [["head-day", "day", true], ["head-upnl", "unrealised", true], ["head-gross", "gross", false], ["head-net", "net", false], ["head-var", "var_99", false]]) {
      const el = $(id);
      el.textContent = fmt.short(own[key], signed); el.title = fmt.number(own[key], 2);
      el.className = signed ? fmt.tone(own[key]) : "";
    }
    $("head-ccy").textContent = own.ccy;
    chart(own.t, own.total);
  }
  if (rows.some((r) => !known.has(r.id))) options();
}

const known = new Set();
function options() {
  for (const id of state.nodes.keys()) known.add(id);
  const books = [...state.nodes.keys()].filter((id) => id.startsWith("book:")).sort();
  fill($("book-select"), [["", "choose …"], ...books.map((b) => [b, b.slice(5)])], state.scope.startsWith("book:") ? state.scope : "");
}

function fill(select, pairs, value) {
  if (select.options.length !== pairs.length || pairs.some(([v], i) => select.options[i].value !== v)) {
    select.replaceChildren(...pairs.map(([v, t]) => { const o = document.createElement("option"); o.value = v; o.textContent = t; return o; }));
  }
  select.value = value;
}

function chart(t, value) {
  if (value === null || !window.uPlot) return;
  const now = t / 1000;
  if (state.xs.length && now - state.xs[state.xs.length - 1] < 0.5) return;
  state.xs.push(now); state.ys.push(value);
  if (state.xs.length > CHART_POINTS) { state.xs.shift(); state.ys.shift(); }
  const host = $("chart"), size = { width: Math.max(200, host.clientWidth - 12), height: Math.max(120, host.clientHeight - 16) };
  if (!state.chart) {
    const axis = { stroke: "#9aa7b4", grid: { stroke: "#222a33" }, ticks: { stroke: "#222a33" } };
    state.chart = new window.uPlot({ ...size, legend: { show: false }, cursor: { y: false }, scales: { x: { time: true } },
      series: [{}, { stroke: "#79b8ff", width: 1.5, points: { show: false } }],
      axes: [axis, { ...axis, size: 90, values: (_, vs) => vs.map((v) => fmt.short(v)) }] }, [state.xs, state.ys], host);
  } else {
    if (state.chart.width !== size.width || state.chart.height !== size.height) state.chart.setSize(size);
    state.chart.setData([state.xs, state.ys]);
  }
}

function crumbs() {
  const nav = $("crumbs");
  nav.replaceChildren();
  const trail = me.nodes.includes(state.scope) ? me.nodes : [...me.nodes, state.scope];
  for (const id of trail) {
    const b = document.createElement("button");
    b.textContent = id; b.type = "button"; b.addEventListener("click", () => go(id));
    if (id === state.scope) b.setAttribute("aria-current", "true");
    nav.append(b);
  }
}

function go(scope) {
  if (scope === state.scope) return;
  history.pushState(null, "", `?scope=${encodeURIComponent(scope)}`);
  enter(scope);
}

// The only way into a scope, whether by a click, the keyboard, the browser's history or a link: nothing of the former one stays.
function enter(scope) {
  Object.assign(state, { scope, xs: [], ys: [], total: 0 });
  state.chart?.setData([[], []]);
  state.nodes.clear(); ladder.clear(); blotter.clear(); blotter.setTotal(null);
  for (const id of HEAD) { const el = $(id); el.textContent = "—"; el.title = ""; el.className = ""; }
  $("head-ccy").textContent = "";
  risk.clear(); limits.clear(); known.clear();
  crumbs(); options(); stream.open(scope);
}

const stream = new Stream({
  hello: (data) => {
    state.staleMs = data.stale_ms.stream; state.levels = data.levels; state.roles = data.roles;
    $("state-open").hidden = !may(); $("sign-in").hidden = !data.sign_in;
    $("limits-ccy").textContent = data.base_currency;
    breakers.draw(); limits.load(); quarantine.load();
    if (!risk.last) risk.say(modelsSaid(data.levels));
    fill($("level-select"), data.levels.filter((l) => l !== "firm").map((l) => [l, l]), $("level-select").value || "desk");
  },
  snapshot: apply, delta: apply,
  feed: (data) => {
    const host = $("feeds");
    host.replaceChildren(...data.feeds.map((f) => {
      const chip = document.createElement("span"), dot = document.createElement("i"), text = document.createElement("span");
      chip.className = "chip"; chip.dataset.state = f.state; dot.className = "dot";
      text.textContent = `${f.name} ${fmt.age(f.age_ms)}${f.state === "stale" ? " stale" : ""}`; chip.append(dot, text);
      return chip;
    }));
  },
  risk: (data) => { if (data.node === state.scope) risk.show(data); },
  reject: (data) => {
    const list = $("rejects"), item = document.createElement("li"), first = data.checks[0] || {};
    if (!state.rejects) list.replaceChildren();
    state.rejects += 1;
    item.textContent = `${data.order} ${data.side} ${fmt.quantity(data.qty)} ${data.inst}: ${data.checks.map((c) => c.check).join(", ")}` +
      (first.limit ? ` (${first.would_be} against ${first.limit})` : "");
    list.prepend(item);
    while (list.children.length > REJECTS_SHOWN) list.lastChild.remove();
    rejectsSaid();
  },
  facts: (data) => { state.earlier = data.earlier; rejectsSaid(); },
  breaker: (data) => breakers.take(data),
  alert: (data) => alerts.take(data),
  refused: (scope) => { $("ladder").querySelector(".empty").textContent = `No stream for ${scope}: it may not be a node, or lie outside of what you may read (${me.nodes.join(", ")}), or you may have to sign in. Trying again.`; },
  bye: (data) => { $("polite").textContent = `Stream closed: ${data.reason}`; },
});

setInterval(() => {
  const age = stream.ageMs(), chip = $("stream-chip"), banner = $("banner");
  const lost = age !== null && age > state.staleMs, waiting = age === null && Date.now() - stream.opened > 3000;
  document.body.classList.toggle("lost", lost);
  risk.age();
  chip.dataset.state = age === null ? "loading" : lost ? "stale" : "live";
  $("stream-text").textContent = age === null ? "Connecting" : fmt.age(age);
  banner.hidden = !lost && !waiting;
  if (lost) {
    banner.textContent = `Stream lost ${fmt.age(age)} ago: last values shown, do not trade on them`;
    for (const f of $("feeds").children) f.dataset.state = "unknown";
  } else if (waiting) banner.textContent = "Server not answering, or more than 6 tabs open";
}, 250);

$("filter").addEventListener("input", (e) => ladder.setFilter(e.target.value));
$("book-select").addEventListener("change", (e) => go(e.target.value || me.home));
$("level-select").addEventListener("change", () => { blotter.clear(); showNodes([...state.nodes.values()]); });
$("csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([ladder.csv()], { type: "text/csv" }));
  link.download = `positions-${state.scope.replaceAll(":", "-")}.csv`; link.click();
});
$("state-open").addEventListener("click", () => breakers.open(state.scope === "firm" ? "all" : state.scope, "halt"));
const asked = () => new URLSearchParams(location.search).get("scope") || me.home;
addEventListener("popstate", () => enter(asked()));
addEventListener("keydown", (e) => {
  if (e.target.matches("input,select,textarea")) {
    if (e.key === "Escape" && !e.target.closest("dialog")) {
      if (e.target === $("filter")) { e.target.value = ""; ladder.setFilter(""); }
      e.target.blur();
    }
    return;
  }
  if (e.key === "/") { $("filter").focus(); e.preventDefault(); } else if (e.key === "Backspace") go(me.home);
});
enter(asked());
window.deskrisk = { ladder, blotter, state, stream };
