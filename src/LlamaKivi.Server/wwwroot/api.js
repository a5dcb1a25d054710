// The server's endpoints. All paths are relative to the page, so that it works under a path base.

/** An answer of the server that is an error. */
export class ApiError extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

function headers(key, body) {
  return {
    ...(body && { 'Content-Type': 'application/json' }),
    ...(key && { Authorization: `Bearer ${key}` }),
  };
}

async function failure(response) {
  const text = await response.text();
  let message;
  try {
    message = JSON.parse(text).error?.message;
  } catch {
    // A proxy's answer is not JSON.
  }
  return new ApiError(message || `The server answered ${response.status} ${response.statusText}.`, response.status, response.headers.get('Retry-After'));
}

export async function getJson(path, key, signal) {
  const response = await fetch(path, { headers: headers(key), signal, cache: 'no-store' });
  if (!response.ok) {
    throw await failure(response);
  }
  return response.json();
}

/** Data fields of a stream of server-sent events. Lines end with LF, CR or CRLF; a field may span chunks and lines. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  let data = [];
  try {
    while (true) {
      const { value, done } = await reader.read();
      buffer += done ? '\n\n' : value;
      let end;
      // A CR at the buffer's end may be the first half of CRLF.
      while ((end = buffer.search(/\n|\r(?!$)/)) >= 0) {
        const line = buffer.slice(0, end);
        buffer = buffer.slice(end + (buffer.startsWith('\r\n', end) ? 2 : 1));
        if (line === '' && data.length > 0) {
          yield data.join('\n');
          data = [];
        } else if (line.startsWith('data:')) {
          data.push(line.slice(line[5] === ' ' ? 6 : 5));
        }
      }
      if (done) {
        return;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Streams an answer: { text }, { reasoning }, { finish } and { usage } as they arrive.
 * @throws {ApiError} The server refused the request, or failed during it.
 */
export async function* complete(request, key, signal) {
  const response = await fetch('v1/chat/completions', {
    method: 'POST',
    headers: headers(key, true),
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) {
    throw await failure(response);
  }
  let finished = false;
  for await (const data of events(response.body)) {
    if (data === '[DONE]') {
      return;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) {
      throw new ApiError(chunk.error.message || 'The server failed during the answer.', 0);
    }
    const choice = chunk.choices?.[0];
    if (choice?.delta?.reasoning_content) {
      yield { reasoning: choice.delta.reasoning_content };
    }
    if (choice?.delta?.content) {
      yield { text: choice.delta.content };
    }
    if (choice?.finish_reason) {
      finished = true;
      yield { finish: choice.finish_reason };
    }
    if (chunk.usage) {
      yield { usage: chunk.usage };
    }
  }
  if (!finished) {
    throw new ApiError('The connection ended before the answer did.', 0);
  }
}
