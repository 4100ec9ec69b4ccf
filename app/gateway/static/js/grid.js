// A virtual grid: rows are data, the DOM holds the visible ones only. Text is touched where it changed, nowhere else.
const ROW = 26, SPARE = 4, FLASH_MS = 250, RESORT_MS = 1000;

export class Grid {
  constructor(host, columns, { label, onOpen, sort, total } = {}) {
    this.columns = columns; this.onOpen = onOpen; this.rows = new Map(); this.order = []; this.filter = "";
    this.sort = sort || { key: columns[0].key, dir: 1 }; this.pool = []; this.dirty = false; this.needSort = true;
    this.lastSort = 0; this.held = false; this.focusId = null; this.totalRow = null; this.pending = 0;
    this.host = host;
    host.setAttribute("role", "grid"); host.setAttribute("aria-label", label || ""); host.tabIndex = 0;
    this.head = div("head", host); this.head.setAttribute("role", "row");
    columns.forEach((c, i) => {
      const cell = div("cell" + (c.text ? " text" : ""), this.head);
      cell.textContent = c.title; cell.style.width = c.width + "px"; cell.tabIndex = -1; cell.title = c.help || c.title;
      cell.setAttribute("role", "columnheader"); cell.setAttribute("aria-colindex", i + 1);
      cell.addEventListener("click", () => this.sortBy(c.key));
    });
    if (total) { this.total = div("total", host); this.total.setAttribute("role", "row"); this.totalCells = columns.map((c) => this.cell(this.total, c)); }
    this.body = div("body", host);
    this.empty = div("empty", host); this.empty.hidden = true;
    host.addEventListener("scroll", () => this.paintSoon(), { passive: true });
    host.addEventListener("pointerenter", () => { this.held = true; });
    host.addEventListener("pointerleave", () => { this.held = false; this.resortSoon(); });
    host.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.paintSoon()).observe(host);
    setInterval(() => this.resortSoon(), RESORT_MS);
    this.markSort();
  }

  cell(row, column) {
    const cell = div("cell" + (column.text ? " text" : "") + (column.dep ? " dep" : ""), row);
    cell.style.width = column.width + "px"; cell.setAttribute("role", "gridcell");
    return cell;
  }

  clear() { this.rows.clear(); this.order = []; this.needSort = true; this.lastSort = 0; this.paintSoon(); }

  set(row) {
    const old = this.rows.get(row.id);
    if (!old) { this.rows.set(row.id, row); this.needSort = true; this.pending += 1; } else {
      row.flash = old.flash || {};
      for (const c of this.columns) {
        if (c.flash && old[c.key] !== row[c.key] && old[c.key] !== null && row[c.key] !== null && row[c.key] !== undefined) {
          row.flash[c.key] = { up: row[c.key] > old[c.key], until: performance.now() + FLASH_MS };
        }
      }
      this.rows.set(row.id, row);
      if (old[this.sort.key] !== row[this.sort.key]) this.pending += 1;
    }
    this.paintSoon();
  }

  remove(id) { if (this.rows.delete(id)) { this.needSort = true; this.lastSort = 0; this.paintSoon(); } }

  setTotal(row) { this.totalRow = row; this.paintSoon(); }

  setFilter(text) { this.filter = text.toLowerCase(); this.needSort = true; this.resort(); }

  sortBy(key) {
    this.sort = this.sort.key === key ? { key, dir: -this.sort.dir } : { key, dir: this.columns.find((c) => c.key === key).text ? 1 : -1 };
    this.markSort(); this.resort();
  }

  markSort() {
    this.columns.forEach((c, i) => {
      const on = c.key === this.sort.key, cell = this.head.children[i];
      cell.setAttribute("aria-sort", on ? (this.sort.dir > 0 ? "ascending" : "descending") : "none");
      cell.textContent = c.title + (on ? (this.sort.dir > 0 ? " ▲" : " ▼") : "");
    });
  }

  resortSoon() { if ((this.pending || this.needSort) && (!this.held || this.needSort)) this.resort(); }

  resort() {
    const { key, dir } = this.sort;
    this.order = [...this.rows.values()].filter((r) => !this.filter || r.search.includes(this.filter));
    this.order.sort((a, b) => {
      const x = a[key], y = b[key];
      if (x === y) return a.id < b.id ? -1 : 1;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : 1) * dir;
    });
    this.order = this.order.map((r) => r.id);
    this.needSort = false; this.pending = 0; this.paintSoon();
  }

  paintSoon() { if (!this.dirty) { this.dirty = true; requestAnimationFrame(() => { this.dirty = false; this.paint(); }); } }

  paint() {
    if (this.needSort && performance.now() - this.lastSort > RESORT_MS) { this.lastSort = performance.now(); this.resort(); }
    const first = Math.max(0, Math.floor(this.host.scrollTop / ROW)), n = Math.ceil(this.host.clientHeight / ROW) + SPARE;
    this.body.style.height = this.order.length * ROW + "px";
    this.host.setAttribute("aria-rowcount", this.order.length);
    while (this.pool.length < Math.min(n, this.order.length)) this.pool.push(this.makeRow());
    let again = false;
    const now = performance.now();
    this.pool.forEach((slot, i) => {
      const at = first + i, row = this.rows.get(this.order[at]);
      slot.el.hidden = !row || i >= n;
      if (!row || i >= n) return;
      const moved = slot.id !== row.id;
      slot.id = row.id;
      const y = `translateY(${at * ROW}px)`;
      if (slot.y !== y) { slot.el.style.transform = slot.y = y; slot.el.setAttribute("aria-rowindex", at + 1); }
      const cls = "row" + (row.q ? " q" + row.q : "");
      if (slot.cls !== cls) slot.el.className = slot.cls = cls;
      slot.el.setAttribute("aria-selected", this.focusId === row.id);
      again = this.fill(slot.cells, row, now, moved) || again;
    });
    if (this.total) this.fill(this.totalCells, this.totalRow || {}, now, true);
    this.empty.hidden = this.order.length > 0;
    if (again) setTimeout(() => this.paintSoon(), FLASH_MS);
  }

  fill(cells, row, now, moved) {
    let flashing = false;
    this.columns.forEach((c, i) => {
      const text = c.format ? c.format(row[c.key], row) : String(row[c.key] ?? ""), slot = cells[i];
      if (slot.textContent !== text) slot.textContent = text;
      const f = !moved && row.flash && row.flash[c.key];
      const live = f && f.until > now;
      if (live) flashing = true;
      const cls = "cell" + (c.text ? " text" : "") + (c.dep ? " dep" : "") + (c.tone ? " " + c.tone(row[c.key] ?? 0) : "") + (live ? (f.up ? " fu" : " fd") : "");
      if (slot.className !== cls) slot.className = cls;
    });
    return flashing;
  }

  makeRow() {
    const el = div("row", this.body);
    el.setAttribute("role", "row");
    const slot = { el, id: null, y: "", cls: "row", cells: this.columns.map((c) => this.cell(el, c)) };
    el.addEventListener("click", () => { this.focusId = slot.id; this.host.focus({ preventScroll: true }); this.onOpen?.(this.rows.get(slot.id)); this.paintSoon(); });
    return slot;
  }

  key(event) {
    const at = Math.max(0, this.order.indexOf(this.focusId)), page = Math.floor(this.host.clientHeight / ROW) - 2;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.order.length - 1 }[event.key];
    if (to !== undefined) {
      const next = Math.min(Math.max(to, 0), this.order.length - 1);
      this.focusId = this.order[next];
      const top = next * ROW, room = this.host.clientHeight - 3 * ROW;
      if (top < this.host.scrollTop) this.host.scrollTop = top; else if (top > this.host.scrollTop + room) this.host.scrollTop = top - room;
      this.paintSoon(); event.preventDefault();
    } else if (event.key === "Enter" && this.focusId) this.onOpen?.(this.rows.get(this.focusId));
    else if (event.key === "s") { const i = this.columns.findIndex((c) => c.key === this.sort.key); this.sortBy(this.columns[(i + 1) % this.columns.length].key); }
  }

  csv() {
    const quote = (v) => (/[",\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v);
    const lines = [this.columns.map((c) => quote(c.title)).join(",")];
    for (const id of this.order) lines.push(this.columns.map((c) => quote(String(this.rows.get(id)[c.key] ?? ""))).join(","));
    return lines.join("\n") + "\n";
  }
}

function div(cls, parent) { const el = document.createElement("div"); el.className = cls; parent.append(el); return el; }
