/** The conversations: searched, opened, renamed, exported, deleted. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { begin, erase, open, rename, save, search } from "../actions.js";
import { showList, state } from "../state.js";
import { Icon, IconButton } from "./icons.js";

const DAY = 86_400_000;

export function List() {
  const narrow = innerWidth <= 860;
  const shut = event => {
    if (event.key === "Escape" && narrow) showList(false);
  };
  return html`<nav class="list" id="list" aria-label="Conversations" hidden=${!state.listShown} onKeyDown=${shut}>
    <div class="top"><span class="mark"><${Icon} name="wind" />Zonda</span>
      <${IconButton} icon="list" label="Hide conversations" onClick=${() => showList(false)} /></div>
    <button type="button" class="new" onClick=${begin}><${Icon} name="plus" />New chat</button>
    <label class="search"><${Icon} name="search" /><input id="search" type="search" placeholder="Search"
      aria-label="Search conversations" value=${state.words} onInput=${event => search(event.target.value)} /></label>
    <div class="heads">${groups().map(([name, heads]) => html`<h2>${name}</h2><ul>
      ${heads.map(head => html`<${Head} key=${head.id} head=${head} />`)}</ul>`)}
      <p class="none" role="status">${note()}</p></div></nav>`;
}

function note() {
  if (!state.lasting) return "This browser keeps nothing: chats last as long as this page.";
  if (state.heads.length) return null;
  return state.words ? "Nothing found." : "Your chats are kept here, in this browser alone.";
}

function Head({ head }) {
  const [naming, name] = useState(false);
  const current = state.current.id === head.id;
  if (naming) return html`<li><${Naming} head=${head} done=${() => name(false)} /></li>`;
  return html`<li class=${current ? "current" : ""}>
    <button type="button" class="open" aria-current=${current ? "page" : null} onClick=${() => open(head.id)}>
      ${state.runs.has(head.id) && html`<i class="busy" role="img" aria-label="Answering"></i>`}<span dir="auto">${head.title}</span></button>
    <${Menu} head=${head} name=${() => name(true)} /></li>`;
}

function Naming({ head, done }) {
  const input = useRef(null);
  useLayoutEffect(() => input.current.select(), []);
  const finish = () => {
    if (!input.current) return;
    rename(head.id, input.current.value);
    done();
  };
  const press = event => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.stopPropagation();
    const line = input.current.closest("li");
    if (event.key === "Enter") finish();
    else done();
    requestAnimationFrame(() => line.querySelector(".open")?.focus());
  };
  return html`<input class="naming" ref=${input} aria-label="New name" defaultValue=${head.title}
    onKeyDown=${press} onBlur=${finish} />`;
}

function Menu({ head, name }) {
  const [shown, show] = useState(false);
  const around = useRef(null);
  useEffect(() => {
    if (!shown) return undefined;
    around.current.querySelector(".menu").scrollIntoView({ block: "nearest" });
    around.current.querySelector(".menu button").focus();
    const away = event => {
      if (!around.current.contains(event.target)) show(false);
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [shown]);
  const press = event => {
    const items = [...around.current.querySelectorAll(".menu button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (shown && step) {
      event.preventDefault();
      items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
    }
    if (shown && event.key === "Escape") {
      event.stopPropagation();
      show(false);
      around.current.firstElementChild.focus();
    }
  };
  const item = (label, act) => html`<button type="button" role="menuitem" onClick=${() => { show(false); act(); }}>${label}</button>`;
  const leave = event => {
    if (event.relatedTarget && !around.current.contains(event.relatedTarget)) show(false);
  };
  return html`<span class="around" ref=${around} onKeyDown=${press} onfocusout=${leave}>
    <${IconButton} icon="more" label=${`Options of ${head.title}`} aria-haspopup="menu" aria-expanded=${shown}
      onClick=${() => show(!shown)} />
    ${shown && html`<div class="menu" role="menu">${item("Rename", name)}
      ${item("Export as Markdown", () => save(head.id, "markdown"))}${item("Export as JSON", () => save(head.id, "json"))}
      ${item("Delete", () => erase(head.id))}</div>`}</span>`;
}

/** By age, as people say it. */
function groups() {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const found = new Map();
  for (const head of state.heads) {
    const name = head.updated >= midnight ? "Today" : head.updated >= midnight - DAY ? "Yesterday"
      : head.updated >= midnight - 7 * DAY ? "This week" : "Earlier";
    found.set(name, [...found.get(name) ?? [], head]);
  }
  return [...found];
}
