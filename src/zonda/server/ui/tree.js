/**
 * A conversation is a tree of messages: siblings are alternatives, and `chosen` holds which child of each is shown.
 *
 * A message is {id, parent, role, text, ...}: of the user with `files`, of the model with `thought`, `calls`, `stats`,
 * `finish` and `error`, of a tool with `call` and `name`.
 */
export const ROOT = "root";

/** A short unique name; crypto.randomUUID is missing on pages that came over plain HTTP. */
export function unique() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 10);
}

/** An empty conversation. */
export function conversation() {
  const now = Date.now();
  return { id: unique(), title: "", created: now, updated: now, nodes: {}, chosen: {} };
}

/** Add a message below `parent`, as the one that is shown. */
export function add(tree, parent, fields) {
  const node = { id: unique(), parent, created: Date.now(), ...fields };
  tree.nodes[node.id] = node;
  tree.chosen[parent] = node.id;
  tree.updated = node.created;
  return node;
}

/** Take in what another page has added to a conversation, or written (as `written` tells, in ms) since. */
export function merge(tree, other) {
  for (const [id, node] of Object.entries(other.nodes)) {
    if (!tree.nodes[id] || (node.written ?? 0) > (tree.nodes[id].written ?? 0)) tree.nodes[id] = node;
  }
  tree.chosen = { ...other.chosen, ...tree.chosen };
  tree.updated = Math.max(tree.updated, other.updated);
}

/** The alternatives below a message, oldest first. */
export function children(tree, parent) {
  return families(tree).get(parent) ?? [];
}

/** The alternatives below every message that has some, in one walk: for all that is shown of a long conversation. */
export function families(tree) {
  const found = new Map();
  for (const node of Object.values(tree.nodes)) {
    if (found.has(node.parent)) found.get(node.parent).push(node);
    else found.set(node.parent, [node]);
  }
  return found;
}

/** The messages that are shown, or those up to one of them. */
export function path(tree, last = null) {
  const shown = [];
  if (last) {
    for (let node = last; node; node = tree.nodes[node.parent]) shown.unshift(node);
    return shown;
  }
  for (let node = tree.nodes[tree.chosen[ROOT]]; node; node = tree.nodes[tree.chosen[node.id]]) shown.push(node);
  return shown;
}

/** Show another alternative: the one `step` places from the message. */
export function turn(tree, node, step) {
  const all = children(tree, node.parent);
  const next = all[all.indexOf(node) + step];
  if (next) tree.chosen[node.parent] = next.id;
  return next;
}

/** The messages as the API takes them. */
export function messages(nodes, system) {
  const said = nodes.map(message).filter(Boolean);
  return system.trim() ? [{ role: "system", content: system }, ...said] : said;
}

function message(node) {
  if (node.role === "user") return { role: "user", content: content(node) };
  if (node.role === "tool") return { role: "tool", tool_call_id: node.call, name: node.name, content: node.text };
  if (!node.text && !node.calls.length) return null;
  const calls = node.calls.map(({ id, name, arguments: given }) =>
    ({ id, type: "function", function: { name, arguments: given } }));
  return { role: "assistant", content: node.text || null, ...(calls.length && { tool_calls: calls }) };
}

function content(node) {
  const texts = node.files.filter(each => !each.image).map(inlined);
  const text = [...texts, node.text].filter(Boolean).join("\n\n");
  const images = node.files.filter(each => each.image).map(each => ({ type: "image_url", image_url: { url: each.image } }));
  return images.length ? [...images, { type: "text", text }] : text;
}

/** A text file as a fenced block; the fence is longer than any within. */
function inlined({ name, text }) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map(each => each.length));
  const fence = "`".repeat(longest + 1);
  return `File: ${name}\n${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
}

/** Conversations out of a file that was exported; throws in words for people. */
export function imported(text) {
  let found = [];
  try {
    found = [JSON.parse(text)].flat();
  } catch {
    // said below
  }
  if (!found.length || !found.every(sound)) throw new Error("This file holds no exported chats.");
  return found;
}

function sound(tree) {
  const nodes = Object.entries(tree?.nodes ?? {});
  return nodes.length > 0 && typeof tree.id === "string" && typeof tree.title === "string" && Number.isFinite(tree.updated)
    && nodes.every(([id, node]) => node?.id === id && whole(node) && rooted(tree, node, nodes.length))
    && Object.entries(tree.chosen ?? {}).every(([parent, child]) => tree.nodes[child]?.parent === parent);
}

function whole({ role, text, files, calls }) {
  if (typeof text !== "string") return false;
  if (role === "user") return Array.isArray(files) && files.every(each => typeof (each?.image ?? each?.text) === "string");
  return role === "tool" || (role === "assistant" && Array.isArray(calls) && calls.every(each => typeof each?.arguments === "string"));
}

function rooted(tree, node, most) {
  for (let steps = 0; node && steps < most; steps++, node = tree.nodes[node.parent]) if (node.parent === ROOT) return true;
  return false;
}

/** A title from the first words. */
export function titled(text) {
  const line = text.trim().split("\n", 1)[0].trim();
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line || "New conversation";
}

/** The shown branch as Markdown. */
export function markdown(tree) {
  const parts = path(tree).map(node => {
    const who = { user: "You", tool: `Tool ${node.name}` }[node.role] ?? node.model ?? "Model";
    const thought = node.thought ? `<details><summary>Reasoning</summary>\n\n${node.thought}\n\n</details>\n\n` : "";
    const calls = (node.calls ?? []).map(each => `\`\`\`json\n${each.name}(${each.arguments})\n\`\`\`\n\n`).join("");
    const files = (node.files ?? []).map(each => (each.image ? `*${each.name}*` : inlined(each)) + "\n\n").join("");
    return `## ${who}\n\n${thought}${files}${node.text}\n\n${calls}`;
  });
  return `# ${tree.title}\n\n${parts.join("")}`.trimEnd() + "\n";
}
