/** Where messages are written. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { halt, send } from "../actions.js";
import { reasons, seesImages } from "../api.js";
import { attachment } from "../files.js";
import { endless } from "../safe.js";
import { configure, model, notice, set, state } from "../state.js";
import { path } from "../tree.js";
import { Attachment } from "./message.js";
import { Icon, IconButton } from "./icons.js";

const THINKING = [["", "Default"], ["off", "Off"], ["on", "On"], ["low", "Low"], ["medium", "Medium"], ["high", "High"],
  ["xhigh", "Highest"]];
const LONG_TEXT = 10_000; // characters; what is longer is pasted as a file

/** What is written but not sent, by conversation. */
const drafts = new Map();

export function Composer({ run }) {
  const area = useRef(null);
  const draft = drafts.get(state.current.id) ?? { text: "", files: [] };
  const [files, keep] = useState(draft.files);
  const [text, write] = useState(draft.text);
  const [hovers, hover] = useState(false);
  drafts.set(state.current.id, { text, files });
  useLayoutEffect(() => fit(area.current), [text]);
  useLayoutEffect(() => area.current.focus(), []);
  const blind = !seesImages(model()) && files.some(each => each.image);
  const ready = state.server === "ready" && !run && !blind && (text.trim() || files.length);

  const take = async list => {
    for (const each of list) {
      try {
        const found = await attachment(each, seesImages(model()));
        keep(all => [...all, found]);
      } catch (error) {
        notice(error.message);
      }
    }
  };
  const submit = event => {
    event?.preventDefault();
    if (!ready) return;
    send(text.trim(), files);
    write("");
    keep([]);
    area.current.focus();
  };
  const press = event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    if (event.key === "ArrowUp" && !text && !run) rewriteLast(event);
  };
  const paste = event => {
    const found = [...event.clipboardData.files];
    const long = event.clipboardData.getData("text/plain");
    if (!found.length && long.length > LONG_TEXT) found.push(new File([long], "pasted text", { type: "text/plain" }));
    if (found.length) event.preventDefault(), take(found);
  };
  useEffect(() => dropping(take, hover), []);

  return html`<form class=${hovers ? "composer hovers" : "composer"} aria-label="Message" onSubmit=${submit}>
    ${files.length > 0 && html`<ul class="files" aria-label="Attachments">${files.map(each => html`<${Attachment} file=${each}
      drop=${() => keep(files.filter(other => other !== each))} />`)}</ul>`}
    ${blind && html`<p class="bad" role="alert">${model()?.id ?? "This model"} takes no images.
      Remove them, or choose another model.</p>`}
    <textarea id="question" ref=${area} class=${endless(text) ? "endless" : ""} dir="auto" rows="1" aria-label="Your message"
      placeholder=${placeholder()} enterkeyhint="send" value=${text} onInput=${event => write(event.target.value)} onKeyDown=${press} onPaste=${paste}></textarea>
    <div class="row"><${Attach} take=${take} />
      ${reasons(model()) && html`<label class="thinking">Thinking <select value=${state.settings.thinking}
        onChange=${event => configure({ thinking: event.target.value })}>
        ${THINKING.map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select></label>`}
      <span class="gap"></span>
      ${run ? html`<button type="button" class="send stop" aria-label="Stop" title="Stop (Esc)" onClick=${halt}>
          <${Icon} name="stop" /></button>`
        : html`<button class="send" aria-label="Send" title="Send (Enter)" disabled=${!ready}><${Icon} name="send" /></button>`}
    </div></form>`;
}

/** Take files that fall anywhere on the page, where the browser would leave it to show them. */
function dropping(take, hover) {
  const within = new AbortController();
  const on = (name, act) => document.addEventListener(name, event => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    act(event);
  }, within);
  on("dragover", () => hover(!state.dialog));
  on("dragleave", event => event.relatedTarget || hover(false));
  on("drop", event => { hover(false); if (!state.dialog) take(event.dataTransfer.files); });
  return () => within.abort();
}

function Attach({ take }) {
  const input = useRef(null);
  const images = seesImages(model());
  const label = images ? "Attach text files or images" : "Attach text files";
  const change = event => {
    take([...event.target.files]);
    event.target.value = "";
  };
  return html`<input type="file" multiple hidden ref=${input} onChange=${change} />
    <${IconButton} icon="clip" label=${label} onClick=${() => input.current.click()} />`;
}

function placeholder() {
  const name = model()?.id.split("/").at(-1);
  return { ready: `Ask ${name}`, loading: "The model is loading…", connecting: "Connecting…", key: "An API key is needed",
    network: "The server cannot be reached", mute: "No model of this server holds conversations" }[state.server] ?? "The server is not ready";
}

function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

function rewriteLast(event) {
  const last = path(state.current).findLast(each => each.role === "user");
  if (!last) return;
  event.preventDefault();
  set({ editing: last.id });
}
