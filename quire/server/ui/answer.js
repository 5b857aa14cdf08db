// One answer as it grows: its reasoning and its tool calls folded, its text, and what it took.

import { show } from "./markdown.js";
import { count, duration, make, rate } from "./util.js";

function fold(title) {
  const body = make("div");
  const summary = make("summary", {}, title);
  return { node: make("details", { class: "fold" }, summary, body), summary, body };
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

export class Answer {
  constructor(model, onResult) {
    this.onResult = onResult;
    this.content = "";
    this.reasoning = "";
    this.calls = [];
    this.usage = null;
    this.seed = null;
    this.finishReason = null;
    this.beganMs = performance.now();
    this.firstMs = null;
    this.lastMs = null;
    this.numPieces = 0;
    this.frame = 0;
    this.text = make("div", { class: "text" });
    this.folds = make("div");
    this.footer = make("footer");
    const head = make("h3", {}, model);
    this.node = make("article", { class: "msg assistant live" }, head, this.folds, this.text, this.footer);
  }

  get isEmpty() {
    return !this.content && !this.reasoning && !this.calls.length;
  }

  take(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const [choice] = chunk.choices ?? [];
    if (!choice) return;
    const delta = choice.delta ?? {};
    this.content += delta.content ?? "";
    this.reasoning += delta.reasoning ?? delta.reasoning_content ?? "";
    for (const part of delta.tool_calls ?? []) this.takeCall(part);
    if (delta.content || delta.reasoning || delta.reasoning_content || delta.tool_calls?.length) {
      this.lastMs = performance.now();
      this.firstMs ??= this.lastMs;
      this.numPieces += 1;
    }
    if (choice.finish_reason) this.finishReason = choice.finish_reason;
    if (choice.seed !== undefined) this.seed = choice.seed;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  takeCall(part) {
    const call = (this.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "", fold: null });
    call.id ||= part.id ?? "";
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }

  draw() {
    this.frame = 0;
    if (this.reasoning) this.drawReasoning();
    for (const call of this.calls) if (call) this.drawCall(call);
    show(this.text, this.content);
  }

  drawReasoning() {
    if (!this.reasoningFold) {
      this.reasoningFold = fold("Thinking");
      this.folds.prepend(this.reasoningFold.node);
    }
    this.reasoningFold.body.textContent = this.reasoning;
    if (this.content) this.reasoningFold.summary.textContent = "Thought";
  }

  drawCall(call) {
    if (!call.fold) {
      call.fold = fold("");
      call.fold.node.classList.add("call");
      call.fold.body.replaceWith((call.fold.body = make("pre")));
      this.folds.append(call.fold.node);
    }
    call.fold.summary.replaceChildren("Calls ", make("code", {}, call.name));
    call.fold.body.textContent = pretty(call.arguments);
  }

  // `how` is set where the answer did not end by itself.
  end(how = null) {
    cancelAnimationFrame(this.frame);
    this.draw();
    this.node.classList.remove("live");
    if (this.reasoningFold) this.reasoningFold.summary.textContent = "Thought";
    if (!how) this.calls.forEach((call) => this.askResult(call));
    const parts = [];
    const tokens = this.usage?.completion_tokens;
    const seconds = (this.lastMs - this.firstMs) / 1000;
    if (tokens) parts.push(`${count(tokens)} tokens`);
    if (this.firstMs) parts.push(`first after ${duration((this.firstMs - this.beganMs) / 1000)}`);
    if (tokens > 1 && seconds > 0) parts.push(`${rate((tokens - 1) / seconds)} tokens/s`);
    if (this.seed !== null) parts.push(`seed ${this.seed}`);
    if (this.finishReason === "length") parts.push("ended at the limit");
    if (how) parts.push(how);
    this.footer.append(...parts.map((part) => make("span", {}, part)));
    if (this.content) this.footer.append(make("button", { type: "button", onclick: (event) => this.copy(event) }, "copy"));
  }

  askResult(call) {
    const field = make("input", { placeholder: "result of the call", "aria-label": `Result of ${call.name}` });
    const button = make("button", { class: "plain" }, "Answer");
    const form = make("form", {}, field, button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.replaceWith(make("p", {}, `→ ${field.value}`));
      this.onResult(call.id, field.value);
    });
    call.fold.node.append(form);
  }

  async copy(event) {
    const button = event.currentTarget;
    await navigator.clipboard?.writeText(this.content);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }

  // The answer as the next request sends it.
  message() {
    const message = { role: "assistant", content: this.content };
    if (this.calls.length) {
      message.content = this.content || null;
      message.tool_calls = this.calls.map(({ id, name, arguments: args }) => ({
        id,
        type: "function",
        function: { name, arguments: args },
      }));
    }
    return message;
  }
}
