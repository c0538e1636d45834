/** Settings, the API key, and the list of shortcuts. */
import { html, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { restore, save, unlock } from "../actions.js";
import { tools } from "../answering.js";
import * as api from "../api.js";
import { COMMAND, DEFAULTS, configure, set, state } from "../state.js";
import { IconButton } from "./icons.js";

const NUMBERS = [
  ["temperature", "Temperature", "0 takes the likeliest token; more is livelier", { min: 0, max: 2, step: 0.01 }],
  ["top_p", "Top p", "Draw from the likeliest tokens of this total probability", { min: 0, max: 1, step: 0.01 }],
  ["top_k", "Top k", "Draw from this many likeliest tokens; 0 from all", { min: 0, step: 1 }],
  ["min_p", "Min p", "Drop tokens less likely than this share of the likeliest", { min: 0, max: 1, step: 0.001 }],
  ["max_tokens", "Max tokens", "The longest answer", { min: 1, step: 1 }],
  ["seed", "Seed", "The same number gives the same answer", { step: 1 }],
];
const KEYS = [["Send", "Enter"], ["New line", "Shift", "Enter"], ["Stop the answer, write a message", "Esc"],
  ["Edit your last message", "↑"], ["New chat", COMMAND, "Shift", "O"], ["Search chats", COMMAND, "K"],
  ["Show or hide chats", COMMAND, "B"], ["Settings", COMMAND, ","], ["These shortcuts", COMMAND, "/"]];

export function Dialogs() {
  if (state.dialog === "settings") return html`<${Settings} />`;
  if (state.dialog === "key") return html`<${Key} />`;
  if (state.dialog === "shortcuts") return html`<${Shortcuts} />`;
  return null;
}

function Dialog({ title, name, children }) {
  const element = useRef(null);
  const gone = useRef(false);
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = element.current;
    dialog.showModal();
    return () => {
      gone.current = true; // the event that tells of its closing comes later, when another may be open
      dialog.close();
      (before?.isConnected && before !== document.body ? before : document.getElementById("question")).focus();
    };
  }, []);
  const close = () => {
    if (!gone.current) set({ dialog: null });
  };
  const click = event => {
    if (event.target === element.current) close();
  };
  return html`<dialog class=${name} ref=${element} aria-labelledby="title" onClose=${close} onMouseDown=${click}>
    <div class="sheet"><header><h2 id="title">${title}</h2>
      <${IconButton} icon="close" label="Close" onClick=${close} /></header>${children}</div></dialog>`;
}

function Settings() {
  const { settings } = state;
  const change = event => {
    if (event.target.checkValidity()) configure({ [event.target.name]: event.target.value });
  };
  return html`<${Dialog} title="Settings" name="settings">
    <label class="tall">System prompt<textarea name="system" rows="4" value=${settings.system} onInput=${change}
      placeholder="How the model should behave"></textarea></label>
    <fieldset><legend>Sampling</legend>${NUMBERS.map(each => html`<${Figure} of=${each} change=${change} />`)}</fieldset>
    <label class="tall">Tools<small>Functions that the model may call, as JSON; you then play the tool.</small>
      <textarea name="tools" rows="3" class="mono" spellcheck="false" value=${settings.tools} onInput=${change}
        placeholder='[{"name": "weather", "parameters": {"type": "object"}}]'></textarea>${broken(settings.tools)}</label>
    <div class="choices spread"><button type="button" onClick=${() => set({ dialog: "key" })}>API key</button>
      <button type="button" onClick=${() => set({ dialog: "shortcuts" })}>Shortcuts</button>
      <button type="button" onClick=${() => configure({ ...DEFAULTS, model: settings.model })}>Reset settings</button>
      <button type="button" onClick=${() => save(null, "json")}>Export all chats</button><${Import} /></div><//>`;
}

/** One number; what it cannot be is said in the place of what it means. */
function Figure({ of: [name, label, hint, limits], change }) {
  const [{ text, wrong }, tell] = useState({});
  const input = event => {
    tell({ text: event.target.value, wrong: event.target.validationMessage });
    change(event);
  };
  return html`<div class="number"><label for=${name}>${label}</label>
    <small id=${`${name}-hint`} class=${wrong ? "bad" : ""} role=${wrong ? "alert" : null}>${wrong || hint}</small>
    <input type="number" inputmode="decimal" id=${name} name=${name} aria-describedby=${`${name}-hint`} placeholder="default"
      aria-invalid=${wrong ? "true" : null} value=${wrong ? text : state.settings[name]} onInput=${input} ...${limits} /></div>`;
}

function Import() {
  const input = useRef(null);
  const change = event => {
    if (event.target.files.length) restore(event.target.files[0]), set({ dialog: null });
  };
  return html`<input type="file" hidden accept=".json,application/json" ref=${input} onChange=${change} />
    <button type="button" onClick=${() => input.current.click()}>Import chats</button>`;
}

function broken(text) {
  try {
    if (text.trim()) tools(text);
    return null;
  } catch (error) {
    return html`<small class="bad" role="alert">${error.message}</small>`;
  }
}

function Key() {
  const input = useRef(null);
  useLayoutEffect(() => {
    input.current.value = api.key();
    input.current.select();
  }, []);
  const submit = event => {
    event.preventDefault();
    unlock(new FormData(event.target).get("key"));
  };
  const refused = api.key() && state.server === "key";
  return html`<${Dialog} title="API key" name="key"><form onSubmit=${submit}>
    <p>${state.server === "key" ? "This server asks for a key. " : ""}A key is kept until this tab is closed.</p>
    <label class="tall">Key<input name="key" type="password" ref=${input} autocomplete="off" spellcheck="false"
      aria-invalid=${refused ? "true" : null} />${refused && html`<small class="bad" role="alert">The server does not accept this key.</small>`}</label>
    <div class="choices"><button class="main">Use key</button></div></form><//>`;
}

function Shortcuts() {
  return html`<${Dialog} title="Keyboard" name="shortcuts"><dl>${KEYS.map(([deed, ...keys]) => html`<div><dt>${deed}</dt>
    <dd>${keys.map(each => html`<kbd>${each}</kbd>`)}</dd></div>`)}</dl><//>`;
}

