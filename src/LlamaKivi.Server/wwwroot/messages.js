// Messages as elements. The model's text enters the page as text nodes, never as HTML.

import { count, percent, rate } from './format.js';

function element(tag, className, text) {
  const created = document.createElement(tag);
  created.className = className;
  if (text !== undefined) {
    created.textContent = text;
  }
  return created;
}

function button(text, label, action) {
  const created = element('button', 'quiet', text);
  created.type = 'button';
  created.setAttribute('aria-label', label);
  created.addEventListener('click', () => action(created));
  return created;
}

/** Appends text to an element, with fenced blocks as code. */
export function appendText(parent, content) {
  // Odd parts are inside fences. A block that is still being written has no closing fence.
  content.split(/^```/m).forEach((part, i) => {
    if (i % 2 === 1) {
      const line = part.indexOf('\n');
      const pre = element('pre', 'code');
      pre.tabIndex = 0;
      pre.append(element('code', '', line < 0 ? '' : part.slice(line + 1)));
      parent.append(pre);
    } else if (part.trim() !== '') {
      parent.append(element('p', 'text', part.replace(/^\n+|\s+$/g, '')));
    }
  });
}

function summary({ usage, seconds, firstSeconds, pieces }) {
  if (!usage) {
    return '';
  }
  const parts = [`${count(usage.completion_tokens)} tokens`];
  if (seconds > firstSeconds && usage.completion_tokens > 1 && pieces > 1) {
    parts.push(`${rate((usage.completion_tokens - 1) / (seconds - firstSeconds))} per second`);
  }
  parts.push(`first after ${firstSeconds.toFixed(2)} s`);
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  if (cached > 0) {
    parts.push(`${percent(cached, usage.prompt_tokens)} of the prompt from the prefix cache`);
  }
  return parts.join(' · ');
}

/** One message in the log. `actions`: { copy, edit, regenerate }, the last two absent where they do not apply. */
export class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.root = element('li', `message ${message.role}`);
    this.root.append(element('h3', 'who', message.role === 'user' ? 'You' : 'Model'));
    if (message.role === 'assistant') {
      this.reasoning = element('details', 'reasoning');
      this.reasoningText = element('p', 'text');
      this.reasoning.append(element('summary', '', 'Reasoning'), this.reasoningText);
      this.root.append(this.reasoning);
    }
    this.body = element('div', 'body');
    this.note = element('p', 'note');
    this.tools = element('div', 'tools');
    this.root.append(this.body, this.note, this.tools);
    if (actions.edit) {
      this.tools.append(button('Edit', 'Edit your last message', actions.edit));
    }
    if (actions.regenerate) {
      this.tools.append(button('Regenerate', 'Regenerate the answer', actions.regenerate));
    }
    this.tools.append(button('Copy', message.role === 'user' ? 'Copy your message' : 'Copy the answer', actions.copy));
    this.update();
  }

  /** Shows the message's text so far. */
  update() {
    const { message } = this;
    this.body.replaceChildren();
    appendText(this.body, message.content);
    if (this.reasoning) {
      this.reasoning.hidden = !message.reasoning;
      this.reasoningText.textContent = message.reasoning ?? '';
    }
    this.root.classList.toggle('writing', message.writing === true);
    this.root.setAttribute('aria-busy', message.writing === true ? 'true' : 'false');
    this.tools.hidden = message.writing === true;
    this.note.textContent = [message.note?.replace(/\.$/, ''), summary(message)].filter(Boolean).join(' · ');
  }

  /** Replaces the text by a field. Calls back with the new text, or with null where the edit was given up. */
  edit(done) {
    const form = element('form', 'edit');
    const field = element('textarea', '');
    field.value = this.message.content;
    field.rows = Math.min(10, this.message.content.split('\n').length + 1);
    field.setAttribute('aria-label', 'Your last message');
    const send = element('button', 'primary', 'Send');
    const cancel = element('button', 'quiet', 'Cancel');
    cancel.type = 'button';
    const row = element('div', 'edit-buttons');
    row.append(send, cancel);
    form.append(field, row);
    cancel.addEventListener('click', () => done(null));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      done(field.value.trim() === '' ? null : field.value);
    });
    form.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        done(null);
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.target === field) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.body.replaceChildren(form);
    this.tools.hidden = true;
    field.focus();
  }
}
