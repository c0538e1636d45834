/** The beginning: draw the page, learn the models, listen to the keyboard. */
import { html, render } from "./vendor/preact.js";
import { begin, halt, open } from "./actions.js";
import { connect, refresh } from "./answering.js";
import { set, showList, state } from "./state.js";
import { Page } from "./views/page.js";

const SHORTCUTS = {
  k: () => {
    showList(true);
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("search").focus()));
  },
  b: () => showList(!state.listShown),
  ",": () => set({ dialog: "settings" }),
};

function press(event) {
  const typing = event.target.closest?.("input, textarea, select");
  const command = event.metaKey || event.ctrlKey;
  const name = event.key.toLowerCase();
  if (event.key === "Escape" && !state.dialog) halt();
  else if (command && event.shiftKey && name === "o") act(event, begin);
  else if (command && !event.shiftKey && !event.altKey && SHORTCUTS[name]) act(event, SHORTCUTS[name]);
  else if (!typing && !command && !state.dialog && event.key === "?") act(event, () => set({ dialog: "shortcuts" }));
  else if (!typing && !command && !state.dialog && event.key === "/") act(event, () => document.getElementById("question").focus());
}

function act(event, deed) {
  event.preventDefault();
  deed();
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${Page} />`, root);
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => document.hidden || connect()); // the server may have changed meanwhile
await Promise.all([connect(), refresh()]);
if (location.hash.length > 1) await open(location.hash.slice(1));
