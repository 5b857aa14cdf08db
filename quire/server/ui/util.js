// Small things that every part needs: elements, numbers as text, storage, and reading event streams.

export function element(id) {
  return document.getElementById(id);
}

// A new element; children are nodes or strings, which become text and never markup.
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(number) {
  return whole.format(number);
}

export function rate(number) {
  return number >= 100 ? count(number) : number >= 10 ? number.toFixed(1) : number.toFixed(number ? 2 : 0);
}

export function duration(seconds) {
  if (seconds >= 10) return `${seconds.toFixed(0)} s`;
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const ms = seconds * 1000;
  return `${ms.toFixed(ms >= 100 ? 0 : ms >= 10 ? 1 : 2)} ms`;
}

export function bytes(number) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20]]) {
    if (number >= size) return `${(number / size).toFixed(1)} ${unit}`;
  }
  return `${count(number / 1024)} KiB`;
}

// What a browser in private mode refuses to store is forgotten when the page is left.
export function remembered(name, otherwise) {
  try {
    return localStorage.getItem(`quire.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`quire.${name}`, value);
  } catch {
    // Nothing to do: it is a convenience.
  }
}

// The key lives as long as the tab.
export function storedKey() {
  try {
    return sessionStorage.getItem("quire.key") ?? "";
  } catch {
    return "";
  }
}

export function storeKey(key) {
  try {
    if (key) sessionStorage.setItem("quire.key", key);
    else sessionStorage.removeItem("quire.key");
  } catch {
    // As above.
  }
}

export function authorization(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

export class HttpProblem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function problemOf(response) {
  let message = `${response.status} ${response.statusText}`.trim();
  try {
    const body = await response.json();
    const found = body.error?.message ?? body.error ?? body.message;
    if (typeof found === "string") message = found;
  } catch {
    // The body is no JSON; the status says enough.
  }
  return new HttpProblem(response.status, message);
}

// The data of each event of a stream, until it ends or says [DONE]. Throws HttpProblem.
export async function* events(url, options) {
  const response = await fetch(url, { cache: "no-store", ...options });
  if (!response.ok) throw await problemOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
