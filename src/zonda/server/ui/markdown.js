/**
 * Markdown of models to DOM. Its HTML is shown as text but for a few bare tags, what marked makes passes DOMPurify, and
 * the page's policy lets HTML be parsed in no other way.
 */
import { Marked } from "./vendor/marked.js";
import highlighter from "./vendor/highlight.js";
import "./vendor/purify.js";
import { copy } from "./files.js";

const purify = globalThis.DOMPurify;
const TAGS = ["a", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img",
  "input", "kbd", "li", "mark", "ol", "p", "pre", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th",
  "thead", "tr", "u", "ul"];
const ATTRIBUTES = ["align", "alt", "checked", "data-lang", "data-math", "disabled", "href", "src", "start", "title", "type"];
const BARE = /&lt;(\/?(?:br|details|kbd|mark|sub|summary|sup|u)\s*\/?)&gt;/gi;
const SAFE_LINK = /^(?:https?:|mailto:)/i;
const SAFE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp);/i;
const LONG_CODE = 40_000; // characters; longer code stays plain
const FLOWING = ":is(p, h1, h2, h3, h4, h5, h6, ul, ol, blockquote, .wide):not(:is(ul, ol, blockquote) *)";
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

const escape = text => text.replace(/[&<>"']/g, each => ESCAPES[each]);

/** Mathematics between dollars, or escaped brackets; a dollar before a digit or a space is money. */
function math(name, level, start, pattern, display) {
  return {
    name, level,
    start: source => source.match(start)?.index,
    tokenizer(source) {
      const found = pattern.exec(source);
      return found ? { type: name, raw: found[0], text: (found[1] ?? found[2]).trim() } : undefined;
    },
    renderer: ({ text }) => `<span data-math="${display}">${escape(text)}</span>`,
  };
}

const marked = new Marked({
  gfm: true,
  extensions: null,
  renderer: {
    html: ({ text }) => escape(text).replace(BARE, "<$1>"),
    code: ({ text, lang }) => `<pre data-lang="${escape((lang ?? "").split(/\s/)[0])}"><code>${escape(text)}</code></pre>\n`,
  },
});
marked.use({ extensions: [
  math("mathBlock", "block", /(?:^|\n) {0,3}(?:\$\$|\\\[)/,
    /^ {0,3}(?:\$\$((?:[^$]|\\\$)+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/, "block"),
  math("mathDisplay", "inline", /\$\$|\\\[/, /^(?:\$\$((?:[^$\n]|\\\$)+?)\$\$|\\\[([^\n]+?)\\\])/, "block"),
  math("mathInline", "inline", /\$|\\\(/, /^(?:\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s\\$]|\S)\$(?!\d)|\\\(([\s\S]+?)\\\))/, "inline"),
] });

/** The blocks of a text: each is {raw, token}; all but the last stay as they are while the text grows. */
export function blocks(text) {
  return marked.lexer(text).filter(token => token.type !== "space" && token.type !== "def")
    .map(token => ({ raw: token.raw, token }));
}

/** Make an element show a block. */
export function fill(element, { token }) {
  const code = element.firstElementChild;
  if (token.type === "code" && code?.classList.contains("code")) return recode(code, token);
  element.replaceChildren(clean(marked.parser([token])));
  element.querySelectorAll("pre").forEach(frame);
  element.querySelectorAll("table").forEach(scroll);
  element.querySelectorAll(FLOWING).forEach(each => { each.dir = "auto"; }); // each runs the way its own text does
  calculate(element);
}

/** What a text's HTML may be; links open elsewhere, and nothing is fetched for it. */
function clean(html) {
  const fragment = purify.sanitize(html, {
    ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true,
  });
  fragment.querySelectorAll("a").forEach(link => {
    if (!SAFE_LINK.test(link.getAttribute("href") ?? "")) return link.replaceWith(...link.childNodes);
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow" });
  });
  fragment.querySelectorAll("img").forEach(image => {
    if (!SAFE_IMAGE.test(image.getAttribute("src") ?? "")) image.replaceWith(instead(image));
  });
  fragment.querySelectorAll("input").forEach(box => {
    if (box.type !== "checkbox") box.remove();
    else box.disabled = true;
  });
  return fragment;
}

/** A link in the place of a picture from elsewhere, which would tell others that it was shown. */
function instead(image) {
  const source = image.getAttribute("src") ?? "";
  const link = document.createElement(SAFE_LINK.test(source) ? "a" : "span");
  link.textContent = image.alt || source || "image";
  if (link.href !== undefined) Object.assign(link, { href: source, target: "_blank", rel: "noopener noreferrer nofollow" });
  return link;
}

/** A frame around code: its language, a button to copy it. */
function frame(pre) {
  const language = pre.dataset.lang ?? "";
  const figure = document.createElement("div");
  const bar = document.createElement("div");
  const button = document.createElement("button");
  figure.className = "code";
  bar.className = "bar";
  bar.textContent = language || "text";
  Object.assign(button, { type: "button", className: "copy", textContent: "Copy" });
  button.setAttribute("aria-label", `Copy ${language} code`.replace("  ", " "));
  button.onclick = async () => {
    await copy(pre.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  };
  bar.append(button);
  pre.tabIndex = 0;
  pre.replaceWith(figure);
  figure.append(bar, pre);
  colour(pre.firstElementChild, language);
}

function recode(figure, { text, lang }) {
  const code = figure.querySelector("code");
  code.textContent = text + "\n";
  const language = (lang ?? "").split(/\s/)[0];
  figure.querySelector(".bar").firstChild.data = language || "text";
  colour(code, language);
}

/** Highlight code in a known language. */
export function colour(code, language) {
  if (!highlighter.getLanguage(language) || code.textContent.length > LONG_CODE) return;
  const { value } = highlighter.highlight(code.textContent, { language, ignoreIllegals: true });
  code.replaceChildren(purify.sanitize(value, { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true }));
}

function scroll(table) {
  const around = document.createElement("div");
  Object.assign(around, { className: "wide", tabIndex: 0 });
  around.setAttribute("role", "region");
  around.setAttribute("aria-label", "Table");
  table.replaceWith(around);
  around.append(table);
}

let loading = null;

/** KaTeX, fetched when there is something for it to do. */
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

async function calculate(element) {
  const found = [...element.querySelectorAll("[data-math]")];
  if (!found.length) return;
  const { renderToString } = await katex();
  for (const each of found) typeset(each, renderToString);
}

/** The page's policy forbids style attributes, so KaTeX's are set as properties. */
function typeset(element, renderToString) {
  const displayMode = element.dataset.math === "block";
  const html = renderToString(element.textContent, { displayMode, throwOnError: false, errorColor: "var(--bad)", strict: "ignore", trust: false, maxExpand: 500, maxSize: 50 });
  const fragment = purify.sanitize(html.replaceAll(' style="', ' data-css="'), {
    USE_PROFILES: { html: true, svg: true, mathMl: true }, ADD_TAGS: ["semantics", "annotation"], ADD_ATTR: ["data-css", "encoding"],
    FORBID_ATTR: ["id", "href", "src"], RETURN_DOM_FRAGMENT: true,
  });
  fragment.querySelectorAll("[data-css]").forEach(each => {
    each.style.cssText = each.dataset.css;
    delete each.dataset.css;
  });
  element.replaceChildren(fragment);
}
