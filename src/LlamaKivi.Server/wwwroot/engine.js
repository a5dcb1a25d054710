// The live panel: what the engine does and what its cache holds, read from GET /engine.

import { getJson } from './api.js';
import { bytes, count, percent, rate, tokens } from './format.js';

const busyInterval = 500;
const idleInterval = 2000;
const samples = 60;

const get = (id) => document.getElementById(id);

const states = {
  unloaded: 'Not loaded; loads with the next message',
  loading: 'Loading the model',
  ready: 'Ready',
  draining: 'Shutting down',
  stopped: 'Stopped',
  failed: 'The model could not be loaded',
};

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function setWidth(element, part, total) {
  element.style.width = total > 0 ? `${Math.min(100, (100 * part) / total)}%` : '0';
}

/** Polls the engine while the page is visible, faster while it works. */
export class EnginePanel {
  #key;
  #model;
  #onStatus;
  #timer = 0;
  #last = null;
  #rates = [];

  constructor({ key, model, onStatus }) {
    this.#key = key;
    this.#model = model;
    this.#onStatus = onStatus;
    document.addEventListener('visibilitychange', () => this.refresh());
  }

  /** Reads the status now, then at intervals. */
  refresh() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (!document.hidden) {
      this.#poll();
    }
  }

  async #poll() {
    const timer = (this.#timer = setTimeout(() => {}, 0));
    let wait = idleInterval;
    try {
      const model = this.#model();
      const status = await getJson(model ? `engine?model=${encodeURIComponent(model)}` : 'engine', this.#key(), AbortSignal.timeout(10000));
      if (this.#timer !== timer) {
        return;  // a later refresh took over
      }
      this.#show(status);
      wait = status.running + status.waiting + status.preempted > 0 ? busyInterval : idleInterval;
    } catch (error) {
      if (this.#timer !== timer) {
        return;
      }
      this.#showState('unreachable', error.status === 401 ? 'API key needed' : error.status ? `Error ${error.status}` : 'Server unreachable');
    }
    this.#timer = setTimeout(() => this.refresh(), wait);
  }

  #showState(state, text) {
    get('state').dataset.state = state;
    setText(get('state-text'), text);
  }

  #show(status) {
    this.#showState(status.state, states[status.state] ?? status.state);
    if (status.cache_type_k === undefined) {
      return;  // while the model loads, the state is all there is
    }
    setText(get('model'), status.model);
    this.#showCache(status);
    this.#showWork(status);
    this.#showRequests(status);
    this.#onStatus(status);
  }

  #showCache(status) {
    const used = status.quantized_bytes + status.exact_bytes;
    const scale = Math.max(status.f16_bytes, used);
    const [keys, values] = [status.cache_type_k, status.cache_type_v];
    const type = keys === values ? keys : `${keys} keys, ${values} values`;
    const ratio = used > 0 ? status.f16_bytes / used : 0;
    setText(get('saving'), ratio > 0 ? `${ratio.toFixed(1)}×` : '–');
    setText(get('saving-text'), ratio === 0 ? 'no tokens yet' : ratio >= 1.05 ? 'smaller than f16' : 'f16: recent tokens are not quantized yet');
    setText(get('type-name'), type);
    setText(get('used-bytes'), bytes(used));
    setText(get('f16-bytes'), bytes(status.f16_bytes));
    setText(get('quantized-bytes'), bytes(status.quantized_bytes));
    setText(get('exact-bytes'), bytes(status.exact_bytes));
    setText(get('tokens'), `${count(status.cache_tokens)} of ${tokens(status.cache_capacity)}`);
    setWidth(get('quantized-bar'), status.quantized_bytes, scale);
    setWidth(get('exact-bar'), status.exact_bytes, scale);
    setWidth(get('f16-bar'), status.f16_bytes, scale);
    setWidth(get('tokens-bar'), status.cache_tokens, status.cache_capacity);
  }

  #showWork(status) {
    const now = performance.now();
    // A smaller counter is another engine: the server restarted, or another model was chosen.
    const known = this.#last && status.model === this.#last.model && status.generated_tokens >= this.#last.generated;
    const perSecond = known ? (1000 * (status.generated_tokens - this.#last.generated)) / (now - this.#last.time) : 0;
    this.#last = { model: status.model, generated: status.generated_tokens, time: now };
    this.#rates = known ? [...this.#rates, perSecond].slice(-samples) : [0];
    setText(get('rate'), rate(perSecond));
    const highest = Math.max(1, ...this.#rates);
    const points = this.#rates.map((value, i) => `${(120 * (samples - this.#rates.length + i)) / (samples - 1)},${31 - (30 * value) / highest}`);
    get('rate-line').firstElementChild.setAttribute('points', points.join(' '));
    setText(get('batch'), tokens(status.batch_tokens));
    setText(get('running'), count(status.running));
    setText(get('waiting'), count(status.waiting));
    setText(get('preempted'), count(status.preempted));
    setText(get('prefix'), `${count(status.prefix_hits)} of ${count(status.prefix_lookups)} requests`);
    setText(get('reused'), percent(status.cached_prompt_tokens, status.prompt_tokens));
  }

  #showRequests(status) {
    const requests = status.requests ?? [];
    const list = get('requests');
    get('no-requests').hidden = requests.length > 0;
    while (list.children.length > requests.length) {
      list.lastElementChild.remove();
    }
    requests.forEach((request, i) => {
      let item = list.children[i];
      if (!item) {
        item = document.createElement('li');
        const bar = document.createElement('span');
        bar.className = 'bar';
        bar.setAttribute('aria-hidden', 'true');
        for (const part of ['prompt', 'answer']) {
          bar.append(Object.assign(document.createElement('span'), { className: part }));
        }
        const reused = document.createElement('span');
        reused.className = 'note';
        item.append(document.createElement('span'), reused, bar);
        list.append(item);
      }
      const [text, reused, bar] = item.children;
      setText(text, `${count(request.prompt_tokens)} prompt, ${count(request.generated_tokens)} written`);
      setText(reused, request.reused_tokens > 0 ? `${count(request.reused_tokens)} reused` : '');
      const longest = Math.max(...requests.map((each) => each.prompt_tokens + each.generated_tokens));
      setWidth(bar.children[0], request.prompt_tokens, longest);
      setWidth(bar.children[1], request.generated_tokens, longest);
    });
  }
}
