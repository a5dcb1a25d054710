// Wires the page: conversations, their streams, parameters and the engine's panel.

import { complete, getJson } from './api.js';
import { Announcer } from './announcer.js';
import { EnginePanel } from './engine.js';
import { percent, tokens } from './format.js';
import { MessageView } from './messages.js';
import { Store, title } from './store.js';

const get = (id) => document.getElementById(id);
const log = get('log');
const input = get('input');
const store = new Store();
const announcer = new Announcer(get('announcer'));
const streams = new Map();  // conversation -> AbortController
let views = [];
let capacity = 0;
let leaving = false;
let model = store.parameters.model ?? '';

const panel = new EnginePanel({
  key: () => store.parameters.key,
  model: () => model,
  onStatus: (status) => {
    if (capacity !== status.cache_capacity) {
      capacity = status.cache_capacity;
      showChats();
    }
  },
});

// --- Conversations

function showChats() {
  const list = get('chat-list');
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  list.replaceChildren(...store.conversations.map((conversation) => {
    const item = document.createElement('li');
    const open = document.createElement('button');
    open.type = 'button';
    open.className = 'chat';
    open.dataset.focus = conversation.id;
    if (conversation === store.current) {
      open.setAttribute('aria-current', 'true');
    }
    const name = document.createElement('span');
    name.className = 'chat-title';
    name.textContent = title(conversation);
    const size = document.createElement('span');
    size.className = 'note';
    size.textContent = streams.has(conversation) ? 'writing…' : conversation.tokens > 0 ? tokens(conversation.tokens) : 'empty';
    const bar = document.createElement('span');
    bar.className = 'bar';
    bar.setAttribute('aria-hidden', 'true');
    bar.title = capacity > 0 ? `${percent(conversation.tokens, capacity)} of the cache` : '';
    const part = document.createElement('span');
    part.className = 'quantized';
    part.style.width = capacity > 0 ? `${Math.min(100, (100 * conversation.tokens) / capacity)}%` : '0';
    bar.append(part);
    open.append(name, size, bar);
    open.addEventListener('click', () => select(conversation));
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.className = 'quiet remove';
    remove.textContent = '×';
    remove.dataset.focus = `remove ${conversation.id}`;
    remove.setAttribute('aria-label', `Delete the conversation “${title(conversation)}”`);
    remove.addEventListener('click', () => {
      streams.get(conversation)?.abort();
      store.remove(conversation);
      store.save();
      show();
      get('new-chat').focus();
      announcer.say('Conversation deleted.');
    });
    item.append(open, remove);
    return item;
  }));
  if (focused) {
    list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }
}

function select(conversation) {
  store.current = conversation;
  store.save();
  show();
  closePanels();
  input.focus();
}

function newChat() {
  select(store.conversations.find((conversation) => conversation.messages.length === 0) ?? store.create());
}

// --- Messages

function show() {
  const { messages } = store.current;
  const lastUser = messages.findLastIndex((message) => message.role === 'user');
  const busy = streams.has(store.current);
  views = messages.map((message, i) => new MessageView(message, {
    copy: (button) => copy(message, button),
    edit: i === lastUser && !busy ? () => edit(i) : undefined,
    regenerate: i === messages.length - 1 && message.role === 'assistant' && !busy ? regenerate : undefined,
  }));
  log.replaceChildren(...views.map((view) => view.root));
  log.scrollTop = log.scrollHeight;
  get('empty').hidden = messages.length > 0;
  log.hidden = messages.length === 0;
  showProblem(store.current.problem);
  showBusy();
  showChats();
}

function showBusy() {
  const busy = streams.has(store.current);
  const focusLost = document.activeElement === get('stop') && !busy;
  get('send').hidden = busy;
  get('stop').hidden = !busy;
  if (focusLost) {
    input.focus();
  }
}

function showProblem(text) {
  get('problem').hidden = !text;
  if (get('problem-text').textContent !== (text ?? '')) {
    get('problem-text').textContent = text ?? '';
  }
}

async function copy(message, button) {
  try {
    await navigator.clipboard.writeText(message.content);
  } catch {
    // Clipboards need HTTPS or localhost. The old command works elsewhere.
    const field = document.createElement('textarea');
    field.value = message.content;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
    button.focus();
  }
  button.textContent = 'Copied';
  announcer.say('Copied.');
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

function edit(index) {
  const { current } = store;
  views[index].edit((text) => {
    if (text !== null && store.current === current && !streams.has(current)) {
      current.messages.length = index;
      ask(text);
    } else {
      show();
    }
    input.focus();
  });
}

// --- Answers

function ask(text) {
  store.current.messages.push({ role: 'user', content: text });
  answer(store.current);
}

function regenerate() {
  const { current } = store;
  if (current.messages.at(-1)?.role === 'assistant') {
    current.messages.pop();
  }
  answer(current);
  input.focus();
}

function request(conversation) {
  const { system, temperature, maxTokens, seed } = store.parameters;
  return {
    ...(model && { model }),
    messages: [
      ...(system ? [{ role: 'system', content: system }] : []),
      ...conversation.messages.map(({ role, content }) => ({ role, content })),
    ],
    ...(temperature !== undefined && { temperature }),
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(seed !== undefined && { seed }),
  };
}

async function answer(conversation) {
  const controller = new AbortController();
  const body = request(conversation);
  const message = { role: 'assistant', content: '', writing: true, pieces: 0 };
  const start = performance.now();
  delete conversation.problem;
  conversation.messages.push(message);
  streams.set(conversation, controller);
  show();
  store.save();
  announcer.start();
  panel.refresh();
  let note = '';
  try {
    for await (const part of complete(body, store.parameters.key, controller.signal)) {
      message.firstSeconds ??= (performance.now() - start) / 1000;
      if (part.text) {
        message.content += part.text;
        message.pieces++;
      }
      if (part.reasoning) {
        message.reasoning = (message.reasoning ?? '') + part.reasoning;
      }
      if (part.finish === 'length') {
        note = 'Cut off at the token limit.';
      }
      if (part.usage) {
        message.usage = part.usage;
        conversation.tokens = part.usage.total_tokens;
      } else {
        message.seconds = (performance.now() - start) / 1000;
      }
      draw(conversation, message);
    }
  } catch (error) {
    if (leaving) {
      return;  // the next load says that the answer is incomplete
    }
    if (controller.signal.aborted) {
      note = 'Stopped.';
    } else {
      conversation.problem = explain(error);
      note = message.content === '' ? '' : 'The answer is incomplete.';
    }
  }
  delete message.writing;
  message.note = note;
  streams.delete(conversation);
  if (message.content === '' && !message.reasoning && (conversation.problem || controller.signal.aborted)) {
    conversation.messages.splice(conversation.messages.indexOf(message), 1);
  }
  store.save();
  if (conversation === store.current) {
    announcer.finish(message.content, note);
    const atEnd = isAtEnd();
    const top = log.scrollTop;
    show();
    log.scrollTop = atEnd ? log.scrollHeight : top;
  } else {
    showChats();
  }
  panel.refresh();
}

function explain(error) {
  if (error instanceof TypeError) {
    return 'The server cannot be reached. Check that it runs, then try again.';
  }
  if (error.status === 401) {
    return 'The server asks for an API key. Enter it under Parameters, then try again.';
  }
  return error.retryAfter ? `${error.message} Try again in ${error.retryAfter} s.` : error.message;
}

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
}

// Text arrives faster than frames where the model is small: a frame draws once.
let drawing = false;
function draw(conversation, message) {
  if (drawing || conversation !== store.current) {
    return;
  }
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const view = views.find((each) => each.message === message);
    if (view) {
      const atEnd = isAtEnd();
      view.update();
      if (atEnd) {
        log.scrollTop = log.scrollHeight;
      }
      announcer.progress(message.content);
    }
  });
}

function stop() {
  streams.get(store.current)?.abort();
}

// --- Input

function fitInput() {
  input.style.height = 'auto';
  input.style.height = `${input.scrollHeight + 2}px`;
}

get('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = input.value;
  if (text.trim() === '' || streams.has(store.current)) {
    return;
  }
  input.value = '';
  fitInput();
  if (store.current.messages.at(-1)?.role === 'user') {
    store.current.messages.pop();  // its answer failed; the new message takes its place
  }
  ask(text);
});
input.addEventListener('input', fitInput);
input.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    get('composer').requestSubmit();
  }
});
get('stop').addEventListener('click', stop);
get('retry').addEventListener('click', () => {
  regenerate();
});
get('new-chat').addEventListener('click', newChat);
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.isComposing) {
    return;
  }
  if (closePanels()) {
    return;
  }
  stop();
});

// --- Parameters

const form = get('parameters');
for (const field of form.elements) {
  field.value = store.parameters[field.name] ?? '';
}
form.addEventListener('submit', (event) => event.preventDefault());
form.addEventListener('input', ({ target }) => {
  const problem = target.validity.valid ? '' : `${target.labels[0].firstChild.textContent}: ${target.validationMessage}`;
  get('parameter-problem').textContent = problem;
  target.setAttribute('aria-invalid', problem === '' ? 'false' : 'true');
  if (problem === '') {
    store.parameters[target.name] = target.value === '' ? undefined : target.type === 'number' ? target.valueAsNumber : target.value;
    store.saveParameters();
  }
});
form.elements.key.addEventListener('change', start);

// --- Panels of narrow windows

const panels = [['show-chats', 'chats'], ['show-side', 'side']];
for (const [buttonId, panelId] of panels) {
  get(buttonId).addEventListener('click', () => {
    const open = !get(panelId).classList.contains('open');
    closePanels();
    get(panelId).classList.toggle('open', open);
    get(buttonId).setAttribute('aria-expanded', String(open));
  });
}

function closePanels() {
  let closed = false;
  for (const [buttonId, panelId] of panels) {
    if (get(panelId).classList.contains('open')) {
      closed = true;
      if (get(panelId).contains(document.activeElement)) {
        get(buttonId).focus();
      }
      get(panelId).classList.remove('open');
      get(buttonId).setAttribute('aria-expanded', 'false');
    }
  }
  return closed;
}

// --- Start

async function start() {
  panel.refresh();
  try {
    const { data } = await getJson('v1/models', store.parameters.key);
    const choice = get('model-choice');
    choice.replaceChildren(...data.map(({ id }) => new Option(id, id)));
    if (!data.some(({ id }) => id === model)) {
      model = data.length > 1 ? data[0].id : '';
    }
    choice.value = model || data[0]?.id;
    get('models').hidden = data.length < 2;
    get('model').hidden = data.length >= 2;
  } catch {
    // The panel shows that the server cannot be reached.
  }
}

get('model-choice').addEventListener('change', ({ target }) => {
  model = store.parameters.model = target.value;
  store.saveParameters();
  panel.refresh();
});

// Answers that a reload cut off keep what they had.
for (const conversation of store.conversations) {
  const message = conversation.messages.at(-1);
  if (message?.writing) {
    delete message.writing;
    message.note = 'The answer is incomplete.';
    conversation.problem = 'The page was reloaded during the answer.';
    if (message.content === '' && !message.reasoning) {
      conversation.messages.pop();
    }
  }
}
addEventListener('pagehide', () => {
  leaving = true;
  store.save();
});
addEventListener('pageshow', ({ persisted }) => persisted && location.reload());
show();
fitInput();
input.focus();
start();
