// Reads answers to screen readers sentence by sentence, with pauses: every token would be noise.

const pause = 3000;

export class Announcer {
  #element;
  #spoken = 0;
  #lastTime = 0;

  constructor(element) {
    this.#element = element;
  }

  say(text) {
    this.#element.textContent = text;
  }

  start() {
    this.#spoken = 0;
    this.#lastTime = performance.now();
    this.say('The model is writing.');
  }

  /** Announces the whole sentences that were added since the last announcement. */
  progress(content) {
    const now = performance.now();
    const end = Math.max(...['. ', '! ', '? ', '\n'].map((mark) => content.lastIndexOf(mark)));
    if (now - this.#lastTime >= pause && end > this.#spoken) {
      this.say(content.slice(this.#spoken, end + 1).trim());
      this.#spoken = end + 1;
      this.#lastTime = now;
    }
  }

  finish(content, note) {
    this.say(`${content.slice(this.#spoken).trim()} ${note || 'End of the answer.'}`.trim());
    this.#spoken = Infinity;  // a frame that is still to be drawn has nothing to add
  }
}
