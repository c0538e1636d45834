/** What makes texts safe to show: the page's policy lets HTML be parsed through DOMPurify alone. */
import "./vendor/purify.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Unbroken words of this length are laid out without kerning: with it, each break makes the rest be shaped anew. */
const ENDLESS = /(?<!\S)\S{500}/;

export const endless = text => ENDLESS.test(text);

/**
 * A text as several, for nodes of their own: each line of a node is cut out of all runs of one script or font that the
 * node has, which takes time by the square of their number.
 */
export const pieces = text => text.match(/.{1,2000}/gsu) ?? [];

export const purify = globalThis.DOMPurify;

export const escape = text => text.replace(/[&<>"']/g, each => ESCAPES[each]);
