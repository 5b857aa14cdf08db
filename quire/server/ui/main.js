// Joins the parts of the page: tabs, theme, the chat and the view of the engine.

import { Chat } from "./chat.js";
import { Engine } from "./engine.js";
import { element, remembered, remember } from "./util.js";

const THEMES = ["", "light", "dark"];

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  remember("theme", theme);
}

function changeTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (isDark ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
  dispatchEvent(new Event("themechange"));
}

function setUpTabs() {
  const tabs = ["chat", "engine"].map((name) => [name, element(`tab-${name}`)]);
  const select = (chosen) => {
    document.body.dataset.tab = chosen;
    for (const [name, tab] of tabs) {
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
    }
    dispatchEvent(new Event("resize"));
  };
  for (const [place, [name, tab]] of tabs.entries()) {
    tab.addEventListener("click", () => select(name));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const [other, otherTab] = tabs[1 - place];
      select(other);
      otherTab.focus();
    });
  }
  select("chat");
}

const stored = remembered("theme", "");
setTheme(THEMES.includes(stored) ? stored : "");
element("theme").addEventListener("click", changeTheme);
setUpTabs();

const engine = new Engine();
const chat = new Chat(() => engine.model);
chat.onKey = () => engine.reconnect();
engine.start();
