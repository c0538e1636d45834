/** Asking the model and writing down what it answers. */
import * as api from "./api.js";
import * as database from "./database.js";
import { exported } from "./files.js";
import { announce, changed, model, notice, set, state } from "./state.js";
import { add, merge, messages, path } from "./tree.js";

const PATIENCE = 5; // times that a busy server is asked again
const SAVE_EVERY = 2000; // ms
const POLL = 2000; // ms between looks at a server that is not ready
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];
let polling = 0;

/** Learn which models there are; while there are none, ask again and again. */
export async function connect() {
  clearTimeout(polling);
  try {
    const found = await api.models();
    const models = found.filter(api.chats);
    set({ models, server: found.length && !models.length ? "mute"
      : models.some(each => each.status !== "loading") ? "ready" : "loading" });
  } catch (error) {
    set({ server: ["network", "key", "loading"].includes(error.kind) ? error.kind : "server" });
    if (error.kind === "key" && !state.dialog) set({ dialog: "key" });
  }
  if (state.server !== "ready" && state.server !== "key") polling = setTimeout(connect, POLL);
}

/** Let the model answer below a message, beside the answers that are there. */
export function answer(tree, parent) {
  return write(tree, add(tree, parent, blank()));
}

/** Ask again in the place of a failed answer. */
export function again(tree, node) {
  return write(tree, Object.assign(node, blank()));
}

function blank() {
  return { role: "assistant", text: "", thought: "", thoughtMs: undefined, calls: [], model: model()?.id ?? null, finish: null,
    error: null, stats: null };
}

async function write(tree, node) {
  const run = { tree, node, controller: new AbortController(), waiting: null, begun: false };
  const looks = setInterval(() => run.begun || connect(), POLL); // the model may be loading
  state.runs.set(tree.id, run);
  changed();
  try {
    await insist(run);
  } finally {
    clearInterval(looks);
    state.runs.delete(tree.id);
    node.thoughtMs ??= node.thought ? performance.now() - run.thoughtBegan : null;
    node.written = Date.now();
    if (node.calls.length) announce(`The model asks for the result of ${node.calls.map(each => each.name).join(", ")}.`);
    changed();
    if (!run.erased) await keep(tree);
  }
  if (model()?.status !== "loaded" && state.server === "ready") connect(); // it is now, or is gone
}

/** Whether a model has to be loaded before it answers. */
export function sleeps(card) {
  return !["loaded", "stuck", undefined].includes(card?.status);
}

/** End the answer that is being written; what there is of it stays. */
export function stop(tree) {
  state.runs.get(tree.id)?.controller.abort();
}

/** Store a conversation. */
export async function keep(tree) {
  if (!Object.keys(tree.nodes).length) return;
  await store(tree);
  await tell(tree.id);
}

/** Tell the list, here and in other tabs, that a conversation has changed. */
export async function tell(id) {
  await refresh();
  channel?.postMessage(id);
}

function store(tree) {
  return database.save(tree).catch(error => notice(error.message, "Export this chat", () => exported("chat", tree)));
}

export async function refresh() {
  const { words } = state;
  const heads = await database.heads(words);
  if (words === state.words) set({ heads }); // else a later search has begun
}

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("zonda") : null;
if (channel) channel.onmessage = ({ data }) => Promise.all([adopt(data), refresh()]);

/** Show what another tab has done to the conversation that is shown here. */
async function adopt(id) {
  const tree = state.runs.get(id)?.tree ?? state.current;
  const stored = tree.id === id && await database.load(id);
  if (!stored) return;
  merge(tree, stored);
  tree.title = stored.title;
  changed();
}

/** Ask until there is an answer, or no hope of one. */
async function insist(run) {
  const { node, controller } = run;
  for (let tries = 0; ; tries++) {
    try {
      return await receive(run);
    } catch (error) {
      if (controller.signal.aborted) {
        node.finish = "stopped";
        return announce("Stopped.");
      }
      if (error.wait === null || error.wait === undefined || tries === PATIENCE || node.text) return give(run, error);
      await pause(run, error);
    }
  }
}

function give({ node }, error) {
  node.error = { kind: error.kind ?? "server", message: error.kind ? error.message : `The page failed: ${error.message}` };
  if (error.kind === "key") set({ dialog: "key", server: "key" });
  else connect(); // the server may be another one by now, with other models
}

/** Wait as long as the server asked for, or until the user is impatient. */
function pause(run, error) {
  run.waiting = { until: Date.now() + error.wait * 1000, message: error.message };
  changed();
  return new Promise(resolve => {
    const timer = setInterval(changed, 1000);
    const end = setTimeout(() => run.hurry(), error.wait * 1000);
    run.hurry = () => {
      clearInterval(timer);
      clearTimeout(end);
      run.waiting = null;
      changed();
      resolve();
    };
    run.controller.signal.addEventListener("abort", run.hurry, { once: true });
  });
}

async function receive(run) {
  const { tree, node, controller } = run;
  controller.signal.throwIfAborted();
  const question = path(tree, tree.nodes[node.parent]);
  let saved = Date.now();
  for await (const chunk of api.chat(request(question, state.settings), controller.signal)) {
    absorb(run, chunk);
    changed();
    if (Date.now() - saved > SAVE_EVERY) {
      saved = node.written = Date.now();
      store(tree);
    }
  }
}

/** The body of a request; what is not set is left to the model's defaults. */
export function request(nodes, settings) {
  const body = { model: model()?.id, messages: messages(nodes, settings.system), stream: true,
    stream_options: { include_usage: true }, ...(api.reasons(model()) && thinking(settings.thinking)) };
  for (const name of NUMBERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.tools.trim()) body.tools = tools(settings.tools);
  return body;
}

function thinking(choice) {
  if (!choice) return {};
  return choice === "off" || choice === "on" ? { enable_thinking: choice === "on" } : { reasoning_effort: choice };
}

/** Tools as they were written: a list of function tools, or of bare functions. */
export function tools(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new api.Failure("request", `The tools in the settings are not JSON: ${error.message}.`);
  }
  return [found].flat().map(each => each.function ? each : { type: "function", function: each });
}

/** Take in a chunk. */
function absorb(run, chunk) {
  const { node } = run;
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (thought) {
    run.thoughtBegan ??= performance.now();
    node.thought += thought;
  }
  if (delta.content) node.text += delta.content;
  for (const call of delta.tool_calls ?? []) extend(node.calls, call);
  if (thought || delta.content || delta.tool_calls) run.begun = true;
  if (node.thought && (delta.content || delta.tool_calls)) node.thoughtMs ??= performance.now() - run.thoughtBegan;
  if (choice?.finish_reason) node.finish = choice.finish_reason;
  if (chunk.model) node.model = chunk.model;
  if (chunk.timings) node.stats = measured(chunk.timings);
}

function extend(calls, { index = 0, id, function: { name, arguments: given } = {} }) {
  const call = calls[index] ??= { id: "", name: "", arguments: "" };
  if (id) call.id = id;
  call.name += name ?? "";
  call.arguments += given ?? "";
}

function measured(timings) {
  return {
    rate: timings.predicted_per_second, tokens: timings.predicted_n, cached: timings.cache_n,
    prompt: timings.prompt_n + (timings.cache_n ?? 0), first: (timings.queue_ms ?? 0) + timings.prompt_ms,
  };
}
