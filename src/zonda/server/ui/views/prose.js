/** A text of the model as formatted blocks; a block is made anew only when its own text changes. */
import { Component, html, useEffect, useMemo, useRef } from "../vendor/preact.js";
import { Growing, blocks, fill } from "../markdown.js";
import { announce } from "../state.js";

class Block extends Component {
  shouldComponentUpdate(next) {
    return next.block.raw !== this.props.block.raw || next.block.token.type !== this.props.block.token.type;
  }

  componentDidMount() {
    fill(this.base, this.props.block);
  }

  componentDidUpdate() {
    fill(this.base, this.props.block);
  }

  render() {
    return html`<div class="block"></div>`;
  }
}

/** `grows` while the text does; a `live` one has a cursor, and its blocks are read to screen readers once complete. */
export function Prose({ text, grows = false, live = false }) {
  const growing = useRef(null);
  growing.current ??= new Growing();
  const found = useMemo(() => grows ? growing.current.blocks(text) : blocks(text), [text, grows]);
  const element = useRef(null);
  const said = useRef(live ? 0 : Infinity);
  useEffect(() => {
    const complete = live ? found.length - 1 : found.length;
    for (; said.current < complete; said.current++) announce(element.current.children[said.current].textContent);
  }, [found.length, live]);
  return useMemo(() => html`<div class=${live ? "prose live" : "prose"} ref=${element}>
    ${found.map((block, index) => html`<${Block} key=${index} block=${block} />`)}</div>`, [found, live]);
}
