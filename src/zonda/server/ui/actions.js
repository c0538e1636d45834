/** What a user can do. */
import * as api from "./api.js";
import { again, answer, connect, keep, refresh, stop, tell } from "./answering.js";
import * as database from "./database.js";
import { download, exported } from "./files.js";
import { changed, compose, notice, set, showList, state } from "./state.js";
import { ROOT, add, conversation, imported, markdown, path, titled, turn } from "./tree.js";

/** Send a message at the end of the shown branch. */
export function send(text, files) {
  const tree = state.current;
  say(tree, path(tree).at(-1)?.id ?? ROOT, text, files);
}

/** Send another version of a message; the old one stays as a branch. */
export function rewrite(node, text) {
  set({ editing: null });
  say(state.current, node.parent, text, node.files);
  compose();
}

/** Another answer beside this one. */
export function regenerate(node) {
  if (node.error && !node.text) again(state.current, node);
  else answer(state.current, node.parent);
  compose();
}

/** Hand the model what its tools found: one text for each of its calls. */
export function resolve(node, results) {
  let parent = node.id;
  node.calls.forEach((call, index) => {
    parent = add(state.current, parent, { role: "tool", call: call.id, name: call.name, text: results[index] }).id;
  });
  answer(state.current, parent);
  compose();
}

function say(tree, parent, text, files) {
  const node = add(tree, parent, { role: "user", text, files });
  tree.title ||= titled(text || files[0]?.name || "");
  locate(tree);
  keep(tree);
  answer(tree, node.id);
}

/** Show the next or the previous alternative of a message. */
export function branch(node, step) {
  turn(state.current, node, step);
  keep(state.current);
  changed();
}

export function halt() {
  stop(state.current);
  compose();
}

/** Begin a conversation. */
export function begin() {
  open(conversation());
}

/** Show a conversation, by its id or itself. */
export async function open(wanted) {
  const tree = typeof wanted === "string" ? state.runs.get(wanted)?.tree ?? await database.load(wanted) : wanted;
  if (!tree) return refresh();
  if (innerWidth <= 860) showList(false);
  set({ current: tree, editing: null });
  locate(tree);
  compose();
}

/** The title and the address of the page are those of its conversation. */
function locate(tree) {
  document.title = tree.title ? `${tree.title} · Zonda` : "Zonda";
  history.replaceState(null, "", Object.keys(tree.nodes).length ? `#${tree.id}` : location.pathname);
}

export async function rename(id, title) {
  const tree = await whole(id);
  if (!title.trim() || title === tree.title) return;
  tree.title = title.trim();
  if (tree === state.current) locate(tree);
  await keep(tree);
}

/** Delete a conversation; for a while it can be had back. */
export async function erase(id) {
  const tree = await whole(id);
  if (state.runs.has(id)) state.runs.get(id).erased = true;
  stop(tree);
  await database.erase(id);
  if (state.current.id === id) begin();
  await tell(id);
  notice(`Deleted “${tree.title}”.`, "Undo", async () => {
    await keep(tree);
    open(tree);
  });
}

/** Write a conversation, or all, into a file. */
export async function save(id, form) {
  const tree = id ? await whole(id) : null;
  const name = (tree?.title ?? "zonda conversations").replace(/[^\p{L}\p{N} _-]+/gu, "").trim() || "conversation";
  if (form === "markdown") download(`${name}.md`, markdown(tree), "text/markdown");
  else exported(name, tree ?? await database.all());
}

/** Take in the conversations of a file that was exported; what is there of the same chat stays too. */
export async function restore(file) {
  try {
    const found = imported(await file.text());
    for (const tree of found) await database.save(tree);
    await tell(found[0].id);
    notice(found.length === 1 ? `Imported “${found[0].title}”.` : `Imported ${found.length} chats.`);
  } catch (error) {
    notice(error.message);
  }
}

export async function search(words) {
  state.words = words;
  await refresh();
}

/** Use a key, and try again what failed for want of it. */
export async function unlock(key) {
  api.key(key.trim());
  set({ dialog: null });
  await connect();
  const last = path(state.current).at(-1);
  if (state.server !== "key" && last?.error?.kind === "key") again(state.current, last);
}

async function whole(id) {
  return state.current.id === id ? state.current : state.runs.get(id)?.tree ?? await database.load(id);
}
