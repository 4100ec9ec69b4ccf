// Trading states of scopes: a chip for each that is not active, and the form with which a person changes one.
import { post } from "./post.js";

const EFFECTS = {
  halt: "New orders are refused; cancels pass. Working orders stay.",
  reduce: "Only orders that reduce a position pass; cancels pass.",
  kill: "New orders are refused, and all working orders of the scope are cancelled.",
  resume: "Orders are checked as before. What is still breached trips again.",
};
const CONFIRMED = new Set(["resume", "kill"]);

export class Breakers {
  constructor(host, dialog, may) {
    Object.assign(this, { host, dialog, may, states: new Map() });
    this.form = dialog.querySelector("form");
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.apply(); });
    this.form.action_.addEventListener("change", () => this.effect());
    this.form.scope.addEventListener("input", () => this.effect());
    this.form.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
  }

  take(control) {
    const held = this.states.get(control.scope);
    if (held && held.rev > control.rev) return;
    this.states.set(control.scope, control);
    this.draw();
  }

  reset() { this.states.clear(); this.draw(); }

  draw() {
    const tripped = [...this.states.values()].filter((c) => c.state !== "active");
    this.host.replaceChildren(...tripped.map((c) => {
      const chip = document.createElement(this.may() ? "button" : "span");
      chip.className = "chip tripped"; chip.dataset.scope = c.scope; chip.dataset.state = c.state;
      chip.textContent = `■ ${c.scope} ${c.state}`;
      chip.title = `${c.reason}, by ${c.by}, since ${new Date(c.ts / 1e6).toLocaleString("en-GB")}`;
      if (this.may()) { chip.type = "button"; chip.addEventListener("click", () => this.open(c.scope, "resume")); }
      return chip;
    }));
  }

  open(scope, action) {
    this.form.reset();
    this.form.scope.value = scope; this.form.action_.value = action;
    this.effect();
    this.dialog.showModal();
  }

  effect() {
    const held = this.states.get(this.form.scope.value), sure = CONFIRMED.has(this.form.action_.value);
    this.form.querySelector(".stands").textContent = held ? `${held.scope} is ${held.state}: ${held.reason}, by ${held.by}` : "This scope was never set.";
    this.form.querySelector(".effect").textContent = EFFECTS[this.form.action_.value];
    this.form.querySelector(".sure").hidden = !sure;
    this.form.confirm_.required = sure;
    this.form.querySelector(".wrong").textContent = "";
  }

  async apply() {
    const scope = this.form.scope.value.trim(), action = this.form.action_.value, wrong = this.form.querySelector(".wrong");
    if (CONFIRMED.has(action) && this.form.confirm_.value.trim() !== scope) {
      wrong.textContent = `Type ${scope} to confirm.`;
      return;
    }
    try {
      await post(`/api/breakers/${encodeURIComponent(scope)}`, { action, reason: this.form.reason.value, rev: this.states.get(scope)?.rev ?? 0 });
      this.dialog.close();
    } catch (error) { wrong.textContent = error.message; }
  }
}
