/** Line icons on a grid of 20. */
import { html } from "../vendor/preact.js";

const PATHS = {
  wind: "M3 7.5h8.5a2.2 2.2 0 1 0-2.1-2.8M3 10.7h11.8a2.4 2.4 0 1 1-2.3 3M3 13.9h4.6",
  plus: "M10 4v12M4 10h12",
  pen: "M10.500 4.500H4.500v11h11v-6M8.500 11.500l.5-2.300L14.700 3.500l1.800 1.800L10.800 11z",
  list: "M3.5 5.5h13v9.5h-13zM8 5.5V15",
  search: "M9 4.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9M12.4 12.4L16 16",
  sliders: "M4 6.5h6M13.5 6.5H16M4 13.5h2.5M10 13.5h6M11.7 4.7a1.8 1.8 0 1 1 0 3.6a1.8 1.8 0 0 1 0-3.6M8.2 11.7a1.8 1.8 0 1 1 0 3.6a1.8 1.8 0 0 1 0-3.6",
  sun: "M10 7a3 3 0 1 0 0 6a3 3 0 0 0 0-6M10 2.8v1.4M10 15.8v1.4M2.8 10h1.4M15.8 10h1.4M4.9 4.9l1 1M14.1 14.1l1 1M15.1 4.9l-1 1M5.9 14.1l-1 1",
  moon: "M16 11.6A6.4 6.4 0 0 1 8.4 4a6.4 6.4 0 1 0 7.6 7.6Z",
  system: "M3.5 4.5h13v8.5h-13zM7.5 16h5M10 13v3",
  send: "M10 16V4.5M5 9.2l5-4.9l5 4.9",
  stop: "M6 6h8v8H6z",
  clip: "M14.8 9.3l-5 5a3.1 3.1 0 0 1-4.4-4.4l5.3-5.3a2 2 0 0 1 2.9 2.9l-5.2 5.2a1 1 0 0 1-1.4-1.4l4.7-4.7",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  check: "M4.5 10.5l3.5 3.5l7.5-8",
  edit: "M4 16l.8-3.4L12.9 4.500l2.600 2.600L7.400 15.200z",
  again: "M15.600 8.200A6 6 0 1 0 16 11M16 4.500v4h-4",
  left: "M12 5l-5 5l5 5",
  right: "M8 5l5 5l-5 5",
  down: "M5 8l5 5l5-5",
  more: "M4.500 10h.01M10 10h.01M15.500 10h.01",
  close: "M5 5l10 10M15 5L5 15",
  file: "M5.500 3.500h6l3 3v10h-9zM11.500 3.500v3h3",
  tool: "M12.600 4a3.700 3.700 0 0 0-3.300 5.300L4.200 14.400l1.600 1.600l5.100-5.100A3.700 3.700 0 0 0 16 7.400l-2.200 1.200l-1.800-.6l-.6-1.800z",
  key: "M7 9.500a3.200 3.200 0 1 0 0 .01M9.500 10.500H16.500v2.500M13.500 10.500v2",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

/** A button that is an icon; its label is also its tooltip. One that is `off` does nothing, but keeps the focus. */
export const IconButton = ({ icon, label, off = false, onClick, ...rest }) => html`<button type="button" class="iconic" title=${label}
  aria-label=${label} aria-disabled=${off ? "true" : null} onClick=${off ? null : onClick} ...${rest}><${Icon} name=${icon} /></button>`;
