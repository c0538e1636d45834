const NEAR = 80; // pixels from the end at which its reader is taken to be there

/** Keeps the end of an element in sight while it grows, unless its reader scrolls up. */
export class Following {
  follows = true;
  #height = 0;
  #top = 0;

  scrolled({ scrollHeight, scrollTop, clientHeight }) {
    if (scrollTop < this.#top && scrollHeight >= this.#height) this.follows = false; // by the reader: it is no shorter
    else if (scrollHeight - scrollTop - clientHeight < NEAR) this.follows = true;
    this.#height = scrollHeight;
    this.#top = scrollTop;
  }

  end(element) {
    this.follows = true;
    element.scrollTop = element.scrollHeight;
  }
}
