// One EventSource per tab. Age is the payload's server time against ours, corrected by the offset seen at hello.
const FACTS = new Set(["alert", "reject", "breaker"]);
const AGES = new Set(["snapshot", "delta", "feed", "hb"]);

export class Stream {
  constructor(handlers) { this.handlers = handlers; this.source = null; this.offset = 0; this.last = 0; this.opened = Date.now(); this.epoch = null; this.facts = 0; }

  open(scope) {
    this.close();
    this.opened = Date.now(); this.last = 0;
    const source = this.source = new EventSource(`/api/stream?scope=${encodeURIComponent(scope)}&rate=10`);
    for (const name of ["hello", "snapshot", "delta", "feed", "alert", "reject", "breaker", "facts", "risk", "hb", "bye"]) {
      source.addEventListener(name, (event) => {
        if (source !== this.source) return; // of a scope that was left
        const data = JSON.parse(event.data);
        if (name === "hello" && data.epoch !== this.epoch) { this.epoch = data.epoch; this.facts = 0; }
        if (FACTS.has(name) && data.seq !== undefined) {
          if (data.seq <= this.facts) return; // came before: a client that resumes is sent facts twice rather than never
          this.facts = data.seq;
        }
        if (name === "hello") this.offset = Date.now() - Date.parse(data.server_time);
        // until when the gateway has followed its topics; facts carry times of their own
        if (AGES.has(name) && data.t) this.last = Math.max(this.last, data.t);
        this.handlers[name]?.(data);
      });
    }
    source.onerror = () => {
      if (source !== this.source || source.readyState !== EventSource.CLOSED) return;
      this.handlers.refused?.(scope);
      setTimeout(() => { if (source === this.source) this.open(scope); }, 2000);
    };
  }

  close() { this.source?.close(); this.source = null; }

  ageMs() { return this.last ? Date.now() - this.offset - this.last : null; }
}
