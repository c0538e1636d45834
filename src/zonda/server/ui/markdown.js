/**
 * Markdown of models to DOM. Its HTML is shown as text but for a few bare tags, what marked makes passes DOMPurify, and
 * the page's policy lets HTML be parsed in no other way.
 */
import { Lexer, Marked } from "./vendor/marked.js";
import highlighter from "./vendor/highlight.js";
import { copy } from "./files.js";
import { calculate, extensions } from "./mathematics.js";
import { endless, escape, pieces, purify } from "./safe.js";

const TAGS = ["a", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img",
  "input", "kbd", "li", "mark", "ol", "p", "pre", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th",
  "thead", "tr", "u", "ul"];
const ATTRIBUTES = ["align", "alt", "checked", "data-lang", "data-math", "disabled", "href", "src", "start", "title", "type"];
const BARE = /&lt;(\/?(?:br|details|kbd|mark|sub|summary|sup|u)\s*\/?)&gt;/gi;
const SAFE_LINK = /^(?:https?:|mailto:)/i;
const SAFE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp);/i;
const CLOSED = /\n *(?:`{3,}|~{3,}) *\n*$/; // the fence of a code block
const LONG_CODE = 40_000; // characters; longer code stays plain
const FLOWING = ":is(p, h1, h2, h3, h4, h5, h6, ul, ol, blockquote, .wide):not(:is(ul, ol, blockquote) *)";
const DEEPEST = 16; // blocks, or spans, within each other; what lies deeper is shown as it is written
const LONGEST = 10_000; // characters of a paragraph in which there are links, emphasis and the like

const marked = new Marked({
  gfm: true,
  extensions: null,
  renderer: {
    html: ({ text }) => escape(text).replace(BARE, "<$1>"),
    code: ({ text, lang }) => `<pre data-lang="${escape(named(lang))}"><code>${escape(text)}</code></pre>\n`,
  },
});
marked.use({ extensions });

/** Texts may be of any shape: this takes neither all of the stack, nor ages for what is in one line. */
class Bounded extends Lexer {
  #depth = 0;

  blockTokens(source, tokens = [], ...rest) {
    return this.#bounded(source, tokens, () => super.blockTokens(source, tokens, ...rest));
  }

  inlineTokens(source, tokens = []) {
    return this.#bounded(source, tokens, () => super.inlineTokens(source, tokens), LONGEST);
  }

  #bounded(source, tokens, lex, longest = Infinity) {
    if (this.#depth === DEEPEST || source.length > longest) {
      tokens.push({ type: "text", raw: source, text: source });
      return tokens;
    }
    this.#depth++;
    try {
      return lex();
    } finally {
      this.#depth--;
    }
  }
}

/** The blocks of a text: each is {raw, token}. */
export function blocks(text) {
  return shown(lexed(text));
}

function lexed(text) {
  return new Bounded(marked.defaults).lex(text);
}

function shown(tokens) {
  return tokens.filter(token => token.type !== "space" && token.type !== "def").map(token => ({ raw: token.raw, token }));
}

/** The blocks of a text that grows. All but the last two stay as they are, so that no more than these is read again. */
export class Growing {
  #text = "";
  #done = [];

  blocks(text) {
    const whole = text.replace(/\r\n?/g, "\n");
    if (!whole.startsWith(this.#text)) this.#text = "", this.#done = [];
    const tokens = lexed(whole.slice(this.#text.length));
    const done = tokens.splice(0, Math.max(0, tokens.length - 4)); // what stays is two blocks, and spaces between
    this.#text += done.map(token => token.raw).join("");
    this.#done = [...this.#done, ...shown(done)];
    return [...this.#done, ...shown(tokens)];
  }
}

/** Make an element show a block. */
export function fill(element, { token }) {
  const code = element.firstElementChild;
  if (token.type === "code" && code?.classList.contains("code")) return recode(code, token);
  element.replaceChildren(clean(marked.parser([token])));
  if (element.classList.toggle("endless", endless(token.raw))) divide(element);
  element.querySelectorAll("pre").forEach(frame);
  element.querySelectorAll("table").forEach(scroll);
  element.querySelectorAll(FLOWING).forEach(each => { each.dir = "auto"; }); // each runs the way its own text does
  calculate(element);
}

function divide(element) {
  const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walk.nextNode()) texts.push(walk.currentNode);
  texts.forEach(text => text.replaceWith(...pieces(text.data)));
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
  fragment.querySelectorAll("h1, h2, h3, h4, h5, h6").forEach(each => {
    each.ariaLevel = Math.min(6, Number(each.localName[1]) + 1); // below the conversation's own
  });
  fragment.querySelectorAll("img").forEach(image => {
    if (!SAFE_IMAGE.test(image.getAttribute("src") ?? "")) image.replaceWith(instead(image));
  });
  fragment.querySelectorAll("input").forEach(box => {
    if (box.type !== "checkbox") box.remove();
    else Object.assign(box, { disabled: true, ariaLabel: "Task" });
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
  Object.assign(pre, { tabIndex: 0, role: "group", ariaLabel: button.ariaLabel.replace("Copy ", "") });
  pre.replaceWith(figure);
  figure.append(bar, pre);
  colour(pre.firstElementChild, language);
}

/** Code that grows is coloured anew when it is a fifth longer or complete: each time, it would take time by its square. */
function recode(figure, { raw, text, lang }) {
  const code = figure.querySelector("code");
  const bar = figure.querySelector(".bar").firstChild;
  const language = named(lang);
  const before = code.textContent;
  const grows = bar.data === (language || "text") && text.startsWith(before) && !CLOSED.test(raw);
  if (grows && text.length < 1.2 * (figure.coloured ?? 0)) return code.append(text.slice(before.length));
  code.textContent = text;
  bar.data = language || "text";
  figure.coloured = text.length;
  return colour(code, language);
}

function named(lang) {
  return (lang ?? "").split(/\s/)[0];
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
