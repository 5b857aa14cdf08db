// The conversation: what is sent, what comes back piece by piece, and how it is shown.

import { Answer } from "./answer.js";
import { authorization, element, events, make, remember, remembered, storeKey, storedKey } from "./util.js";

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];
const KEPT = ["system", "tools", "thinking", ...NUMBERS];
const NEAR_END_PX = 80;

export class Chat {
  constructor(modelName) {
    this.modelName = modelName;
    this.onKey = () => {};
    this.messages = [];
    this.running = null;
    this.log = element("log");
    this.scroll = element("scroll");
    this.field = element("message");
    this.setUpSettings();
    element("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    element("stop").addEventListener("click", () => this.stop());
    element("new-chat").addEventListener("click", () => this.clear());
    element("examples").addEventListener("click", (event) => {
      if (event.target.matches(".chip")) this.say(event.target.textContent);
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
    });
    this.field.focus();
  }

  setUpSettings() {
    for (const name of KEPT) {
      element(name).value = remembered(name, "");
      element(name).addEventListener("input", () => {
        remember(name, element(name).value);
        this.showSettings();
      });
    }
    element("key").value = storedKey();
    element("key").addEventListener("change", () => {
      storeKey(element("key").value.trim());
      this.onKey();
    });
    this.showSettings();
  }

  showSettings() {
    const parts = NUMBERS.filter((name) => element(name).value !== "").map(
      (name) => `${name.replace("_", " ")} ${element(name).value}`,
    );
    if (element("thinking").value) parts.push(`thinking ${element("thinking").value}`);
    if (element("system").value.trim()) parts.unshift("system prompt");
    if (element("tools").value.trim()) parts.push("tools");
    element("settings-line").textContent = parts.join(" · ");
  }

  clear() {
    this.stop();
    this.messages = [];
    this.log.replaceChildren();
    element("welcome").hidden = false;
    this.field.focus();
  }

  stop() {
    this.running?.abort();
  }

  send() {
    const text = this.field.value.trim();
    if (!text || this.running) return;
    this.field.value = "";
    this.say(text);
  }

  say(text) {
    if (this.running) return;
    this.messages.push({ role: "user", content: text });
    const shown = make("div", { class: "text" }, text);
    this.log.append(make("article", { class: "msg user" }, make("h3", {}, "You"), shown));
    this.ask();
  }

  // The result of a tool that the model called; when all have one, the model goes on.
  takeResult(id, result) {
    this.messages.push({ role: "tool", tool_call_id: id, content: result });
    const calls = this.messages.findLast((one) => one.tool_calls)?.tool_calls ?? [];
    const done = new Set(this.messages.map((one) => one.tool_call_id));
    if (calls.every((call) => done.has(call.id)) && !this.running) this.ask();
  }

  body() {
    const system = element("system").value.trim();
    const tools = element("tools").value.trim();
    const messages = system ? [{ role: "system", content: system }, ...this.messages] : this.messages;
    const body = {
      model: this.modelName(),
      messages,
      stream: true,
      stream_options: { include_usage: true },
    };
    for (const name of NUMBERS) {
      const { value, validity } = element(name);
      if (validity.badInput) throw new Error(`${name} is not a number`);
      if (value !== "") body[name] = Number(value);
    }
    const { value: thinking } = element("thinking");
    if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === "on" };
    if (tools) {
      try {
        body.tools = JSON.parse(tools);
      } catch (error) {
        throw new Error(`the tools are not JSON: ${error.message}`);
      }
    }
    return body;
  }

  async ask() {
    element("welcome").hidden = true;
    this.log.querySelectorAll(".problem").forEach((one) => one.remove());
    const answer = new Answer(this.modelName(), (id, result) => this.takeResult(id, result));
    const aborter = new AbortController();
    const { messages } = this;
    this.setRunning(aborter);
    this.log.append(answer.node);
    this.follow(true);
    try {
      const options = {
        method: "POST",
        headers: { "content-type": "application/json", ...authorization(element("key").value.trim()) },
        body: JSON.stringify(this.body()),
        signal: aborter.signal,
      };
      for await (const chunk of events("v1/chat/completions", options)) {
        if (chunk.error) throw new Error(chunk.error.message ?? "the answer failed");
        answer.take(chunk);
        this.follow();
      }
      answer.end();
    } catch (error) {
      answer.end(aborter.signal.aborted ? "stopped" : "failed");
      if (!aborter.signal.aborted) this.showProblem(error);
    }
    if (messages !== this.messages) answer.node.remove(); // a new chat began meanwhile
    else if (answer.isEmpty) this.takeBack(answer);
    else this.messages.push(answer.message());
    this.setRunning(null);
    this.follow();
  }

  // What got no answer goes back to the field, so that the conversation stays one of turns.
  takeBack(answer) {
    answer.node.remove();
    if (this.messages.at(-1)?.role !== "user") return;
    const { content } = this.messages.pop();
    [...this.log.querySelectorAll(".user")].at(-1)?.remove();
    this.field.value ||= content;
  }

  setRunning(aborter) {
    this.running = aborter;
    this.log.setAttribute("aria-busy", String(aborter !== null));
    element("stop").hidden = aborter === null;
    element("send").hidden = aborter !== null;
    if (aborter === null && document.activeElement === document.body) this.field.focus();
  }

  showProblem(error) {
    let text = error.message;
    if (error.status === 401) {
      text = "The server wants an API key. Give it in the settings below.";
      element("controls").open = true;
      element("key").focus();
    } else if (error instanceof TypeError) {
      text = "The server cannot be reached.";
    }
    this.log.append(make("p", { class: "problem", role: "alert" }, text));
  }

  // Keeps the end in sight, unless the reader has scrolled away from it.
  follow(always = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    if (always || scrollHeight - scrollTop - clientHeight < NEAR_END_PX) {
      requestAnimationFrame(() => this.scroll.scrollTo({ top: this.scroll.scrollHeight }));
    }
  }
}
