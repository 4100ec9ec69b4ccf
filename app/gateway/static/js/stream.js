// One EventSource per tab. Age is the payload's server time against ours, corrected by the offset seen at hello.
export class Stream {
  constructor(handlers) { this.handlers = handlers; this.source = null; this.offset = 0; this.last = 0; this.opened = Date.now(); }

  open(scope) {
    this.close();
    this.opened = Date.now();
    this.source = new EventSource(`/api/stream?scope=${encodeURIComponent(scope)}&rate=10`);
    for (const name of ["hello", "snapshot", "delta", "feed", "alert", "reject", "breaker", "risk", "hb", "bye"]) {
      this.source.addEventListener(name, (event) => {
        const data = JSON.parse(event.data);
        if (name === "hello") { this.offset = Date.now() - Date.parse(data.server_time); this.last = Date.parse(data.server_time); }
        if (data.t) this.last = Math.max(this.last, data.t);
        this.handlers[name]?.(data);
      });
    }
    this.source.onerror = () => {
      if (this.source && this.source.readyState === EventSource.CLOSED) setTimeout(() => this.open(scope), 2000);
    };
  }

  close() { this.source?.close(); this.source = null; }

  ageMs() { return this.last ? Date.now() - this.offset - this.last : null; }
}
