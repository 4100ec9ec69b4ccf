// The form with which a person asks to override a limit for a while; a second one approves it.
import { post } from "./post.js";

export class OverrideForm {
  constructor(dialog) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.ask(); });
    this.form.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
  }

  open(alert) {
    this.form.reset();
    this.limit_id = alert.limit_id;
    this.form.querySelector(".stands").textContent = `${alert.limit_id}: ${alert.metric} of ${alert.node} is ${alert.value}, the limit is ${alert.limit}.`;
    this.form.querySelector(".wrong").textContent = "";
    this.dialog.showModal();
  }

  async ask() {
    try {
      await post("/api/overrides", { limit_id: this.limit_id, limit: this.form.limit.value, minutes: Number(this.form.minutes.value), reason: this.form.reason.value });
      this.dialog.close();
    } catch (error) { this.form.querySelector(".wrong").textContent = error.message; }
  }
}
