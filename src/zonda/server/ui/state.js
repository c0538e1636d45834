/** What the page knows, and who is told when it changes. */
import { conversation } from "./tree.js";

/** Empty values mean: as the model's own defaults say. */
export const DEFAULTS = {
  model: "", system: "", temperature: "", top_p: "", top_k: "", min_p: "", max_tokens: "", seed: "", thinking: "", tools: "",
};

export const state = {
  /** What the list shows of each conversation. */
  heads: [],
  /** Whether conversations outlive the page. */
  lasting: true,
  /** What the list is searched for. */
  words: "",
  current: conversation(),
  /** The answers that are being written, by conversation. */
  runs: new Map(),
  models: [],
  /** One of connecting, ready, loading, network, key, mute, server; mute where no model holds conversations. */
  server: "connecting",
  settings: { ...DEFAULTS, ...remembered("settings", {}) },
  theme: remembered("theme", "system"),
  /** The id of the message that is being rewritten. */
  editing: null,
  /** The open dialog: settings, key or shortcuts. */
  dialog: null,
  listShown: innerWidth > 860 && remembered("list", true),
  /** A word at the foot of the page: {text, action, act}. */
  notice: null,
};

/** The key of shortcuts; on a Mac, Ctrl moves in texts. */
export const COMMAND = /Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl";

const SLOW = 40; // ms
const listeners = new Set();
let due = false;
let spent = 0; // ms that the last drawing took, with its layout

/** Call a function after each change. */
export function listen(listener) {
  listeners.add(listener);
}

/** Change some fields and show it. */
export function set(fields) {
  Object.assign(state, fields);
  changed();
}

/** Show what has changed, once a frame; where that takes long, half of the time is left for what the user does. */
export function changed() {
  if (due) return;
  due = true;
  if (spent > SLOW) setTimeout(() => requestAnimationFrame(draw), spent);
  else requestAnimationFrame(draw);
}

function draw() {
  const began = performance.now();
  due = false;
  listeners.forEach(each => each());
  setTimeout(() => { spent = performance.now() - began; });
}

/** The model that will answer. */
export function model() {
  return state.models.find(each => each.id === state.settings.model) ?? state.models[0];
}

export function configure(fields) {
  set({ settings: { ...state.settings, ...fields } });
  remember("settings", { ...remembered("settings", {}), ...fields }); // other tabs have set others
}

export function theme(name) {
  set({ theme: name });
  remember("theme", name);
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

/** Other tabs have set something; each keeps its own model. */
export function follow({ key }) {
  if (key === "zonda.theme") theme(remembered("theme", "system"));
  if (key === "zonda.settings") set({ settings: { ...state.settings, ...remembered("settings", {}), model: state.settings.model } });
}

export function showList(shown) {
  set({ listShown: shown });
  if (innerWidth > 860) remember("list", shown);
}

let fading = 0;

/** Show a word at the foot of the page for a while, perhaps with something to do about it. */
export function notice(text, action = null, act = null) {
  clearTimeout(fading);
  set({ notice: { text, action, act } });
  fading = setTimeout(() => set({ notice: null }), action ? 20_000 : 4000);
}

/** Put the focus where messages are written, or, where that would bring up a keyboard over the page, near it. */
export function compose() {
  const place = matchMedia("(pointer: coarse)").matches ? ".conversation" : "#question";
  changed();
  requestAnimationFrame(() => document.querySelector(place).focus({ preventScroll: true })); // when what has changed is shown
}

let said = null;

/** Tell screen readers. */
export function announce(text) {
  said ??= document.getElementById("announcer");
  const line = document.createElement("p");
  line.textContent = text;
  said.append(line);
  while (said.childElementCount > 12) said.firstChild.remove();
}

function remembered(name, otherwise) {
  try {
    const text = localStorage.getItem(`zonda.${name}`);
    if (text === null) return otherwise;
    return typeof otherwise === "string" ? text : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`zonda.${name}`, typeof value === "string" ? value : JSON.stringify(value));
  } catch {
    notice("This browser does not keep settings.");
  }
}
