// The part of Markdown that models write, made into nodes. Text becomes text nodes only: nothing that
// a model says can become markup.

import { make } from "./util.js";

const INLINE = new RegExp(
  [
    "(?<code>`+)(?<inside>[^`]|[^`].*?[^`])\\k<code>(?!`)",
    "\\*\\*(?<strong>\\S(?:.*?\\S)?)\\*\\*",
    "\\*(?<em>[^\\s*](?:[^*]*?[^\\s*])?)\\*",
    "\\[(?<label>[^\\[\\]]+)\\]\\((?<target>https?://[^\\s()]+)\\)",
    "(?<url>https?://[^\\s<>()\"']+[^\\s<>()\"'.,;:!?])",
  ].join("|"),
  "s",
);
const DEPTH = 4;

function link(target, label) {
  return make("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}

function inline(text, depth = 0) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const found = depth < DEPTH ? INLINE.exec(rest) : null;
    if (!found) {
      nodes.push(rest);
      break;
    }
    if (found.index) nodes.push(rest.slice(0, found.index));
    const { inside, strong, em, label, target, url } = found.groups;
    if (inside !== undefined) nodes.push(make("code", {}, inside));
    else if (strong !== undefined) nodes.push(make("strong", {}, ...inline(strong, depth + 1)));
    else if (em !== undefined) nodes.push(make("em", {}, ...inline(em, depth + 1)));
    else if (target !== undefined) nodes.push(link(target, label));
    else nodes.push(link(url, url));
    rest = rest.slice(found.index + found[0].length);
  }
  return nodes;
}

const ITEM = /^\s{0,3}(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const RULE = /^\s{0,3}(?:-{3,}|\*{3,}|_{3,})\s*$/;

function kindOf(line) {
  if (!line.trim()) return "blank";
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (/^\s{0,3}>/.test(line)) return "quote";
  const item = ITEM.exec(line);
  if (item) return item[1] === undefined ? "bullets" : "numbers";
  return "text";
}

// [{kind, lines}] of a text, in its order.
function blocksOf(text) {
  const blocks = [];
  let fence = null;
  let last = "blank";
  for (const line of text.split("\n")) {
    const kind = fence ? "fence" : kindOf(line);
    const current = blocks.at(-1);
    if (fence) {
      current.lines.push(line);
      if (line.trim().startsWith(fence) && /^[`~]+$/.test(line.trim())) fence = null;
      last = fence ? "fence" : "blank";
      continue;
    }
    const isMore =
      (kind === last && ["text", "quote", "bullets", "numbers"].includes(kind)) ||
      (kind === "text" && (last === "bullets" || last === "numbers" || last === "quote"));
    if (kind === "fence") fence = FENCE.exec(line)[1];
    if (isMore) current.lines.push(line);
    else if (kind !== "blank") blocks.push({ kind, lines: [line] });
    last = isMore && kind === "text" ? last : kind;
  }
  return blocks;
}

function lines(texts) {
  return texts.flatMap((one, place) => (place ? [make("br"), ...inline(one)] : inline(one)));
}

function list(tag, block) {
  const items = [];
  for (const line of block.lines) {
    const item = ITEM.exec(line);
    if (item) items.push([item[2]]);
    else items.at(-1).push(line.trim());
  }
  const made = make(tag, {}, ...items.map((texts) => make("li", {}, ...lines(texts))));
  const first = ITEM.exec(block.lines[0])[1];
  if (tag === "ol" && first !== "1") made.setAttribute("start", first);
  return made;
}

function nodeOf(block) {
  const [first] = block.lines;
  if (block.kind === "fence") {
    const body = block.lines.slice(1);
    const mark = FENCE.exec(first)[1];
    if (body.length && body.at(-1).trim().startsWith(mark)) body.pop();
    return make("pre", { tabindex: "0" }, make("code", {}, body.join("\n")));
  }
  if (block.kind === "heading") {
    const [, marks, text] = HEADING.exec(first);
    return make(`h${Math.min(5, marks.length + 2)}`, {}, ...inline(text));
  }
  if (block.kind === "rule") return make("hr");
  if (block.kind === "quote") {
    return make("blockquote", {}, ...lines(block.lines.map((one) => one.replace(/^\s*>\s?/, ""))));
  }
  if (block.kind === "bullets") return list("ul", block);
  if (block.kind === "numbers") return list("ol", block);
  return make("p", {}, ...lines(block.lines));
}

// Shows a text in a node. Called again with a longer text, it makes only the blocks that changed.
export function show(parent, text) {
  const sources = parent.sources ?? [];
  const blocks = blocksOf(text);
  const fresh = blocks.map((block) => block.kind + "\n" + block.lines.join("\n"));
  let same = 0;
  while (same < sources.length && same < fresh.length && sources[same] === fresh[same]) same += 1;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  parent.append(...blocks.slice(same).map(nodeOf));
  parent.sources = fresh;
}
