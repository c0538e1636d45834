/** The whole page. */
import { html, useEffect, useLayoutEffect, useReducer, useRef, useState } from "../vendor/preact.js";
import { begin } from "../actions.js";
import { sleeps } from "../answering.js";
import { COMMAND, configure, listen, model, set, showList, state, theme } from "../state.js";
import { families, path } from "../tree.js";
import { Composer } from "./composer.js";
import { Dialogs } from "./dialogs.js";
import { Following } from "./following.js";
import { Icon, IconButton } from "./icons.js";
import { List } from "./list.js";
import { Message } from "./message.js";

const THEMES = { system: ["system", "light"], light: ["sun", "dark"], dark: ["moon", "system"] };

export function Page() {
  const [, draw] = useReducer(count => count + 1, 0);
  useEffect(() => listen(draw), []);
  const run = state.runs.get(state.current.id);
  const covered = state.listShown && innerWidth <= 860;
  return html`<${List} />
    ${covered && html`<div class="veil" onClick=${() => showList(false)}></div>`}
    <main inert=${covered} class=${state.current.title ? "" : "fresh"}><${Head} />
      <${Conversation} run=${run} /><div class="foot"><${Composer} key=${state.current.id} run=${run} /></div></main>
    <${Dialogs} /><${Notice} />`;
}

function Head() {
  const [icon, next] = THEMES[state.theme];
  return html`<header class="head">
    ${!state.listShown && html`<${IconButton} icon="list" label="Show conversations" aria-controls="list"
      aria-expanded="false" onClick=${() => showList(true)} />
      <${IconButton} icon="pen" label="New chat" onClick=${begin} />`}
    <${Models} />
    <span class="gap"></span>
    <${IconButton} icon=${icon} label=${`Theme: ${state.theme}; switch to ${next}`} onClick=${() => theme(next)} />
    <${IconButton} icon="sliders" label="Settings" onClick=${() => set({ dialog: "settings" })} /></header>`;
}

const STATES = { loading: "Loading the model…", connecting: "Connecting…", network: "Server not reached",
  key: "Enter the API key", mute: "No model here chats", server: "Server not ready" };

function Models() {
  if (state.server === "key") return html`<button type="button" class="locked" onClick=${() => set({ dialog: "key" })}>
    <${Icon} name="key" />${STATES.key}</button>`;
  if (state.server !== "ready") return html`<p class="state" role="status"><i class="busy"></i>${STATES[state.server]}</p>`;
  return html`<label class="models"><span class="unseen">Model</span><select value=${model().id}
    onChange=${event => configure({ model: event.target.value })}>
    ${state.models.map(each => html`<option value=${each.id}>${each.id}${note(each)}</option>`)}</select></label>`;
}

function note(card) {
  if (card.status === "failed") return " · failed to load";
  return sleeps(card) ? " · not loaded" : "";
}

/** The messages; the view follows the end unless the reader has scrolled away from it. */
function Conversation({ run }) {
  const element = useRef(null);
  const [following] = useState(() => new Following());
  const [away, leave] = useState(false);
  const shown = path(state.current);
  const versions = families(state.current);
  const end = () => following.end(element.current);
  useLayoutEffect(() => {
    if (following.follows) end();
  });
  useLayoutEffect(end, [state.current.id, shown.length, run !== undefined && run.node.id]);
  useEffect(() => {
    const watch = new ResizeObserver(() => following.follows && end());
    watch.observe(element.current.querySelector(".column"));
    return () => watch.disconnect();
  }, []);
  const scrolled = () => {
    following.scrolled(element.current);
    leave(!following.follows);
  };
  return html`<section class="conversation" aria-label="Conversation" ref=${element} onScroll=${scrolled} tabindex="-1">
    ${shown.length > 0 && html`<h1 class="unseen">${state.current.title}</h1>`}
    <div class="column">${shown.length ? shown.map((node, index) => html`<${Message} key=${index} node=${node} written=${node.written}
      place=${versions.get(node.parent).indexOf(node)} count=${versions.get(node.parent).length} run=${run}
      last=${index === shown.length - 1} editing=${state.editing === node.id} several=${state.models.length > 1} />`)
      : html`<${Welcome} />`}</div>
    ${away && html`<button type="button" class="latest" onClick=${end}><${Icon} name="down" />Latest</button>`}</section>`;
}

function Welcome() {
  return html`<div class="welcome"><${Icon} name="wind" /><h1>What is on your mind?</h1>
    <p>Answers come from the model on this server. <kbd>${COMMAND}</kbd> <kbd>/</kbd> lists shortcuts.</p></div>`;
}

function Notice() {
  const { notice } = state;
  return html`<div class="notices" role="status">${notice && html`<div class="notice">${notice.text}
    ${notice.action && html`<button type="button" onClick=${() => { set({ notice: null }); notice.act(); }}>${notice.action}</button>`}
    </div>`}</div>`;
}
