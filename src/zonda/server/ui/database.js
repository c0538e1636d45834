/** Conversations in the browser's IndexedDB; where there is none, they last as long as the page. */
import { merge } from "./tree.js";

const NAME = "zonda";
const STORE = "conversations";
const memory = new Map();
let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  }).catch(() => null);
  return opened;
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function store(mode) {
  const found = await database();
  return found?.transaction(STORE, mode).objectStore(STORE);
}

/** Whether conversations outlive the page. */
export async function lasting() {
  return Boolean(await database());
}

/** Store a conversation, with what other pages have added to it; throws in words for people. */
export async function save(tree) {
  const kept = await store("readwrite");
  if (!kept) return memory.set(tree.id, structuredClone(tree));
  const stored = await done(kept.get(tree.id));
  if (stored) merge(tree, stored);
  try {
    kept.put(tree);
    await complete(kept.transaction);
  } catch (error) {
    throw new Error(error.name !== "QuotaExceededError" ? `This browser does not keep the chat: ${error.message}`
      : "This browser has no room left: what is new is not kept. Delete some chats.");
  }
}

function complete(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
}

export async function load(id) {
  const kept = await store("readonly");
  return kept ? done(kept.get(id)) : memory.get(id);
}

export async function erase(id) {
  const kept = await store("readwrite");
  memory.delete(id);
  if (kept) await done(kept.delete(id));
}

export async function all() {
  const kept = await store("readonly");
  return kept ? done(kept.getAll()) : [...memory.values()];
}

/** What the list shows of each conversation that has the words, newest first. */
export async function heads(words = "") {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  await each(tree => {
    if (wanted.length && !matches(tree, wanted)) return;
    found.push({ id: tree.id, title: tree.title, updated: tree.updated });
  });
  return found.sort((a, b) => b.updated - a.updated);
}

/** Visit one after the other, so that not all are in memory at once. */
async function each(visit) {
  const kept = await store("readonly");
  if (!kept) return memory.forEach(visit);
  return new Promise((resolve, reject) => {
    const request = kept.openCursor();
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const cursor = request.result;
      if (!cursor) return resolve();
      visit(cursor.value);
      cursor.continue();
    };
  });
}

function matches(tree, wanted) {
  const texts = [tree.title, ...Object.values(tree.nodes).map(node => node.text)].join("\n").toLowerCase();
  return wanted.every(word => texts.includes(word));
}
