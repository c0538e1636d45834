/** Mathematics: found between dollars or escaped brackets, typeset by KaTeX, which is fetched when there is some. */
import { escape, purify } from "./safe.js";

const SLICE = 12; // ms of typesetting after which the page may breathe
const KEPT = 400; // formulas remembered: a block that grows is made anew with all of its formulas
const typeset = new Map();
let loading = null;

/** Marked's extensions; a dollar before a digit or a space is money. */
export const extensions = [
  found("mathBlock", "block", /(?:^|\n) {0,3}(?:\$\$|\\\[)/,
    /^ {0,3}(?:\$\$((?:[^$]|\\\$)+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/, "block"),
  found("mathDisplay", "inline", /\$\$|\\\[/, /^(?:\$\$((?:[^$\n]|\\\$)+?)\$\$|\\\[([^\n]+?)\\\])/, "block"),
  found("mathInline", "inline", /\$|\\\(/, /^(?:\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s\\$]|\S)\$(?!\d)|\\\(([\s\S]+?)\\\))/, "inline"),
];

function found(name, level, start, pattern, display) {
  return {
    name, level,
    start: source => source.match(start)?.index,
    tokenizer(source) {
      const match = pattern.exec(source);
      return match ? { type: name, raw: match[0], text: (match[1] ?? match[2]).trim() } : undefined;
    },
    renderer: ({ text }) => `<span data-math="${display}">${escape(text)}</span>`,
  };
}

/** Typeset what the extensions found in an element. */
export async function calculate(element) {
  const all = [...element.querySelectorAll("[data-math]")];
  if (!all.length) return;
  const { renderToString } = await katex();
  let began = performance.now();
  for (const each of all) {
    if (performance.now() - began > SLICE) {
      await new Promise(resolve => setTimeout(resolve));
      if (!element.contains(each)) return; // made anew in the meantime
      began = performance.now();
    }
    each.replaceChildren(formula(each.textContent, each.dataset.math, renderToString));
  }
}

function katex() {
  loading ??= new Promise((resolve, reject) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL("./vendor/katex/katex.css", import.meta.url);
    document.head.append(sheet);
    import("./vendor/katex/katex.js").then(() => resolve(globalThis.katex), reject);
  });
  return loading;
}

function formula(text, display, renderToString) {
  const name = `${display} ${text}`;
  if (!typeset.has(name)) {
    if (typeset.size === KEPT) typeset.delete(typeset.keys().next().value);
    typeset.set(name, drawn(text, display === "block", renderToString));
  }
  return typeset.get(name).cloneNode(true);
}

/** The page's policy forbids style attributes, so KaTeX's are set as properties. */
function drawn(text, displayMode, renderToString) {
  let html;
  try {
    html = renderToString(text, { displayMode, throwOnError: false, errorColor: "var(--bad)", strict: "ignore", trust: false, maxExpand: 500, maxSize: 50 });
  } catch { // of stack, where braces lie too deep in each other
    return document.createTextNode(text);
  }
  const fragment = purify.sanitize(html.replaceAll(' style="', ' data-css="'), {
    USE_PROFILES: { html: true, svg: true, mathMl: true }, ADD_TAGS: ["semantics", "annotation"], ADD_ATTR: ["data-css", "encoding"],
    FORBID_ATTR: ["id", "href", "src"], RETURN_DOM_FRAGMENT: true,
  });
  fragment.querySelectorAll("[data-css]").forEach(each => {
    each.style.cssText = each.dataset.css;
    delete each.dataset.css;
  });
  return fragment;
}
