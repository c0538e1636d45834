/** What makes texts safe to show: the page's policy lets HTML be parsed through DOMPurify alone. */
import "./vendor/purify.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Unbroken words of this length are laid out without kerning: with it, each break makes the rest be shaped anew. */
const ENDLESS = /(?<!\S)\S{500}/;

export const endless = text => ENDLESS.test(text);

export const purify = globalThis.DOMPurify;

export const escape = text => text.replace(/[&<>"']/g, each => ESCAPES[each]);
