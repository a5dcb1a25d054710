// Conversations and parameters of this browser tab, kept in its session storage.

const conversationsKey = 'llamakivi.conversations';
const parametersKey = 'llamakivi.parameters';

function read(key, fallback) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

function write(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // The storage is full or blocked. The page works on without it.
  }
}

/** A message: { role, content, reasoning?, note?, usage? }. A conversation: { id, messages, tokens }. */
export class Store {
  constructor() {
    const saved = read(conversationsKey, null);
    const usable = Array.isArray(saved?.conversations) ? saved.conversations.filter((item) => item?.id && Array.isArray(item.messages)) : [];
    this.conversations = usable;
    this.current = usable.find((item) => item.id === saved.currentId) ?? usable[0] ?? this.create();
    this.parameters = read(parametersKey, {});
  }

  create() {
    const conversation = { id: `c${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, messages: [], tokens: 0 };
    this.conversations.unshift(conversation);
    this.current = conversation;
    return conversation;
  }

  remove(conversation) {
    const index = this.conversations.indexOf(conversation);
    this.conversations.splice(index, 1);
    if (this.current === conversation) {
      this.current = this.conversations[Math.min(index, this.conversations.length - 1)] ?? this.create();
    }
  }

  save() {
    write(conversationsKey, { currentId: this.current.id, conversations: this.conversations });
  }

  saveParameters() {
    write(parametersKey, this.parameters);
  }
}

export function title(conversation) {
  const first = conversation.messages.find((message) => message.role === 'user');
  return first ? first.content.trim().replace(/\s+/g, ' ').slice(0, 60) : 'New conversation';
}
