/** The beginning: draw the page, learn the models, listen to the keyboard. */
import { html, render } from "./vendor/preact.js";
import { begin, halt, open } from "./actions.js";
import { connect, refresh } from "./answering.js";
import { lasting } from "./database.js";
import { COMMAND, follow, set, showList, state } from "./state.js";
import { Page } from "./views/page.js";

const SHORTCUTS = {
  "shift o": begin,
  k: () => {
    showList(true);
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("search").focus()));
  },
  b: () => showList(!state.listShown),
  ",": () => set({ dialog: "settings" }),
  "/": () => set({ dialog: "shortcuts" }),
};

function press(event) {
  if (state.dialog) return;
  if (event.key === "Escape") halt();
  const name = event.key.toLowerCase();
  const shift = event.shiftKey && name !== "/" ? "shift " : ""; // some keyboards have the slash above a digit
  const deed = SHORTCUTS[shift + name];
  if (!deed || event.altKey || !(COMMAND === "Ctrl" ? event.ctrlKey : event.metaKey)) return;
  event.preventDefault();
  deed();
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${Page} />`, root);
document.addEventListener("keydown", press);
addEventListener("storage", follow);
document.addEventListener("visibilitychange", () => document.hidden || connect()); // the server may have changed meanwhile
await Promise.all([connect(), refresh(), lasting().then(found => set({ lasting: found }))]);
if (location.hash.length > 1) await open(location.hash.slice(1));
