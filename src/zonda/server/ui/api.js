/** The server's API, and what can go wrong with it, in words for people. */
const API = new URL("../v1/", import.meta.url);
const KEY = "zonda.key";

/** What went wrong; `kind` is one of key, busy, loading, network, request, server. */
export class Failure extends Error {
  constructor(kind, message, { status = 0, wait = null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.wait = wait; // seconds after which it is worth trying again
  }
}

/** The key lasts as long as the tab. */
export function key(value) {
  if (value === undefined) return sessionStorage.getItem(KEY) ?? "";
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  return value;
}

/** The models that are served; none while the first is loading. */
export async function models() {
  const response = await ask("models");
  return (await response.json()).data;
}

/** Whether a model holds conversations, or may: what a model can do is known once it has been loaded. */
export function chats(card) {
  return card.capabilities?.includes("chat") ?? true;
}

/** Whether a model has something to say before it answers, or may. */
export function reasons(card) {
  return card?.capabilities?.includes("reasoning") ?? true;
}

/** Whether a model sees pictures. */
export function seesImages(card) {
  const said = [card?.capabilities, card?.modalities?.input, card?.input_modalities].flat();
  return said.some(each => each === "image" || each === "vision");
}

/** The chunks of a streamed answer. Leaving the loop ends the request. */
export async function* chat(body, signal) {
  const response = await ask("chat/completions", { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw failure(chunk.error, 500, null);
    yield chunk;
  }
  throw new Failure("network", "The connection ended before the answer did.");
}

async function ask(path, options = {}) {
  const headers = { "content-type": "application/json", ...(key() && { authorization: `Bearer ${key()}` }) };
  let response;
  try {
    response = await fetch(new URL(path, API), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("network", "The server cannot be reached. Is it running, and is this device online?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw failure(told.error ?? {}, response.status, response.headers.get("retry-after"));
}

function failure({ message }, status, wait) {
  const seconds = wait === null ? null : Number(wait) || 5;
  if (status === 401) return new Failure("key", key() ? "The server does not accept this API key."
    : "The server asks for an API key.", { status });
  if (status === 429) return new Failure("busy", "The server has as many requests as it takes.",
    { status, wait: seconds ?? 5 });
  if (status === 503) return new Failure("loading", message ? sentence(message) : "The server is not ready yet.",
    { status, wait: seconds ?? 3 });
  return new Failure(status < 500 ? "request" : "server", message ? sentence(message)
    : `The server answered with status ${status}.`, { status });
}

function sentence(text) {
  const whole = text.replace(/^\p{Ll}(?=\p{Ll}*[\s,])/u, letter => letter.toUpperCase()); // but no name of a file
  return /[.!?)]$/.test(whole) ? whole : `${whole}.`;
}

/** The data of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(lost);
      if (done) return;
      const frames = (rest + value).split(/\r?\n\r?\n/);
      rest = frames.pop();
      yield* frames.map(data).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw new Failure("network", "The connection was lost before the answer ended.");
}

function data(frame) {
  return frame.split(/\r?\n/).filter(line => line.startsWith("data:")).map(line => line.slice(5).trimStart()).join("\n");
}
