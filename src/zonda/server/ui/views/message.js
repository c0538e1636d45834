/** One message with what can be done about it. */
import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { branch, regenerate, resolve, rewrite } from "../actions.js";
import { sleeps } from "../answering.js";
import { bytes, copy } from "../files.js";
import { colour } from "../markdown.js";
import { endless, pieces } from "../safe.js";
import { announce, compose, set, state } from "../state.js";
import { Following } from "./following.js";
import { Icon, IconButton } from "./icons.js";
import { Prose } from "./prose.js";

/** Drawn again when a property changes, or while it is written: long chats stay fluid. `place` is among `count` versions. */
export class Message extends Component {
  shouldComponentUpdate(next) {
    return next.run?.node === next.node || Object.keys(next).some(each => next[each] !== this.props[each]);
  }

  render({ node, ...rest }) {
    const view = { user: Question, tool: Result }[node.role] ?? Answer;
    return html`<${view} node=${node} ...${rest} />`;
  }
}

function Question({ node, place, count, run, editing }) {
  return html`<article class="question" aria-label="You">
    ${node.files.length > 0 && html`<ul class="files">${node.files.map(each => html`<${Attachment} file=${each} />`)}</ul>`}
    ${editing ? html`<${Rewriting} node=${node} run=${run} />`
      : node.text && html`<div class=${endless(node.text) ? "said endless" : "said"} dir="auto">${pieces(node.text)}</div>`}
    ${!editing && html`<div class="deeds"><${Branches} node=${node} place=${place} count=${count} run=${run} />
      <${CopyButton} text=${node.text} label="Copy message" />
      <${IconButton} icon="edit" label="Edit message" off=${run} onClick=${() => set({ editing: node.id })} /></div>`}
  </article>`;
}

function Rewriting({ node, run }) {
  const area = useRef(null);
  useLayoutEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(node.text.length, node.text.length);
  }, []);
  const leave = () => {
    set({ editing: null });
    compose();
  };
  const send = () => {
    const text = area.current.value.trim();
    if (run || (!text && !node.files.length)) return;
    rewrite(node, text);
  };
  const press = event => {
    if (event.key === "Escape") event.stopPropagation(), leave();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) event.preventDefault(), send();
  };
  return html`<div class="rewriting"><textarea ref=${area} dir="auto" aria-label="Edit your message" onKeyDown=${press}
      rows=${Math.min(12, node.text.split("\n").length + 1)}>${node.text}</textarea>
    <div class="choices"><button type="button" onClick=${leave}>Cancel</button>
      <button type="button" class="main" disabled=${run} onClick=${send}>Send</button></div></div>`;
}

function Answer({ node, place, count, run, last, several }) {
  const writing = run?.node === node;
  const empty = !node.text && !node.thought && !node.calls.length;
  const loads = sleeps(state.models.find(each => each.id === node.model));
  return html`<article class="answer" aria-label=${node.model ?? "Model"} aria-busy=${writing}>
    ${node.thought && html`<${Thought} key=${node.id} node=${node} thinking=${writing && node.thoughtMs === undefined} />`}
    ${node.text && html`<${Prose} key=${node.id} text=${node.text} grows=${writing} live=${writing} />`}
    ${node.calls.map(call => html`<${Call} call=${call} />`)}
    ${writing && empty && (run.waiting ? html`<${Waiting} run=${run} />` : html`<p class="breath" role="status">
      <i></i><i></i><i></i><span class=${loads ? "" : "unseen"}>${loads ? "Loading the model…" : "The model is working"}</span></p>`)}
    ${node.error && html`<${Trouble} node=${node} run=${run} />`}
    ${last && !run && node.calls.length > 0 && !node.error && html`<${Results} node=${node} />`}
    ${!writing && html`<${Foot} node=${node} place=${place} count=${count} run=${run} several=${several} />`}
  </article>`;
}

function Foot({ node, place, count, run, several }) {
  return html`<div class="deeds"><${Branches} node=${node} place=${place} count=${count} run=${run} />
    ${node.text && html`<${CopyButton} text=${node.text} label="Copy answer" />`}
    ${!node.error && html`<${IconButton} icon="again" label="Answer again" off=${run} onClick=${() => regenerate(node)} />`}
    <${Stats} node=${node} several=${several} /></div>`;
}

const ENDS = { null: "not finished", stopped: "stopped", length: "cut at the token limit", content_filter: "cut by a filter" };

function Stats({ node: { stats, finish, error, model }, several }) {
  const parts = [!error && ENDS[finish], several && model, stats && `${stats.tokens} tokens`,
    stats && `${stats.rate.toFixed(1)} tokens/s`, stats && `first after ${time(stats.first)}`];
  const more = stats && `${stats.prompt} tokens in the prompt${stats.cached ? `, ${stats.cached} of them cached` : ""}`;
  return html`<span class="stats" title=${[model, more].filter(Boolean).join(" · ")}>${parts.filter(Boolean).join(" · ")}</span>`;
}

function time(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function Branches({ node, place, count, run }) {
  if (count < 2) return null;
  return html`<span class="branches" role="group" aria-label="Versions">
    <${IconButton} icon="left" label="Previous version" off=${run || !place} onClick=${() => branch(node, -1)} />
    <span aria-live="polite">${place + 1} / ${count}</span>
    <${IconButton} icon="right" label="Next version" off=${run || place === count - 1} onClick=${() => branch(node, 1)} /></span>`;
}

/** Open while the model thinks, unless the user says otherwise. */
function Thought({ node, thinking }) {
  const [chosen, choose] = useState(null);
  const inner = useRef(null);
  const [following] = useState(() => new Following());
  const shown = chosen ?? thinking;
  useEffect(() => {
    if (thinking && inner.current && following.follows) following.end(inner.current);
  });
  const label = thinking ? "Thinking" : node.thoughtMs > 100 ? `Thought for ${time(node.thoughtMs)}` : "Thought";
  return html`<section class=${thinking ? "thought thinking" : "thought"}>
    <button type="button" aria-expanded=${shown} onClick=${() => choose(!shown)}><${Icon} name="right" />${label}</button>
    ${shown && html`<div class="inner" ref=${inner} tabindex="0" role="region" aria-label="Reasoning"
      onScroll=${() => following.scrolled(inner.current)}>
      <${Prose} text=${node.thought} grows=${thinking} /></div>`}</section>`;
}

function Call({ call }) {
  const code = useRef(null);
  const text = pretty(call.arguments);
  useEffect(() => {
    code.current.textContent = text;
    colour(code.current, "json");
  }, [text]);
  return html`<section class="call" aria-label=${`Tool call ${call.name}`}><h2><${Icon} name="tool" />
    <span>Calls <code>${call.name}</code></span></h2><pre tabindex="0"><code ref=${code}></code></pre></section>`;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Where the user plays the tools. */
function Results({ node }) {
  const submit = event => {
    event.preventDefault();
    resolve(node, new FormData(event.target).getAll("result"));
  };
  return html`<form class="results" onSubmit=${submit}>${node.calls.map(call => html`<label><span>Result of <code>${call.name}</code></span>
      <textarea name="result" rows="2" required></textarea></label>`)}
    <div class="choices"><button class="main">Send result${node.calls.length > 1 ? "s" : ""}</button></div></form>`;
}

function Result({ node }) {
  return html`<article aria-label=${`Result of ${node.name}`}><div class="call"><h2><${Icon} name="check" />
    <span>Result of <code>${node.name}</code></span></h2><pre tabindex="0"><code>${node.text}</code></pre></div></article>`;
}

function Waiting({ run: { waiting, hurry, controller } }) {
  const seconds = Math.max(0, Math.ceil((waiting.until - Date.now()) / 1000));
  return html`<div class="trouble calm" role="status"><p>${waiting.message} Trying again in ${seconds} s.</p>
    <div class="choices"><button type="button" onClick=${() => controller.abort()}>Cancel</button>
      <button type="button" class="main" onClick=${hurry}>Try now</button></div></div>`;
}

function Trouble({ node, run }) {
  const asksKey = node.error.kind === "key";
  return html`<div class="trouble" role="alert"><p>${node.error.message}</p>
    <div class="choices">${asksKey && html`<button type="button" class="main" onClick=${() => set({ dialog: "key" })}>
      Enter key</button>`}
      <button type="button" disabled=${run} onClick=${() => regenerate(node)}>Try again</button></div></div>`;
}

function CopyButton({ text, label }) {
  const [done, finish] = useState(false);
  const act = async () => {
    await copy(text);
    announce("Copied.");
    finish(true);
    setTimeout(() => finish(false), 1600);
  };
  return html`<${IconButton} icon=${done ? "check" : "copy"} label=${done ? "Copied" : label} onClick=${act} />`;
}

/** An attachment, with a way to take it off while it is not sent. */
export function Attachment({ file, drop }) {
  return html`<li class="file">${file.image ? html`<img src=${file.image} alt="" />` : html`<${Icon} name="file" />`}
    <span class="name">${file.name}</span><span class="size">${bytes(file.size)}</span>
    ${drop && html`<${IconButton} icon="close" label=${`Remove ${file.name}`} onClick=${drop} />`}</li>`;
}
