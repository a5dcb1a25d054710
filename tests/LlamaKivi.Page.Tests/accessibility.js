// Functions that tests evaluate in the page.

const visible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !element.closest('.hidden');

// WCAG 2.2, relative luminance and contrast ratio.
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}

function channels(color) {
  const values = color.match(/[\d.]+/g).map(Number);
  return values.length === 3 ? [...values, 1] : values;
}

function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const color = channels(getComputedStyle(at).backgroundColor);
    if (color[3] === 1) {
      return color;
    }
    if (color[3] > 0) {
      throw new Error(`A translucent background cannot be measured: ${at.outerHTML.slice(0, 100)}`);
    }
  }
  return [255, 255, 255, 1];
}

function contrast(element, text, pseudo) {
  const front = channels(getComputedStyle(element, pseudo).color);
  const back = background(element);
  const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
  return { text: text.slice(0, 60), ratio: (high + 0.05) / (low + 0.05), colors: `${front} on ${back}` };
}

/** The contrast of every text on the page: text nodes, values and placeholders. */
function contrasts() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement, data } = walker.currentNode;
    if (data.trim() !== '' && visible(parentElement)) {
      found.push(contrast(parentElement, data.trim()));
    }
  }
  for (const field of document.querySelectorAll('input, textarea')) {
    if (visible(field)) {
      found.push(contrast(field, `value of ${field.name || field.id}`));
      if (field.placeholder) {
        found.push(contrast(field, field.placeholder, '::placeholder'));
      }
    }
  }
  return found;
}

/** Elements that reach beyond the window's sides, and those that scroll sideways; code blocks may scroll by themselves. */
function overflowing() {
  const width = document.documentElement.clientWidth;
  return [...document.querySelectorAll('*')].filter((element) => {
    if (!visible(element) || element.closest('pre, svg, .skip')) {
      return false;
    }
    const { left, right } = element.getBoundingClientRect();
    const scrolls = element.scrollWidth > element.clientWidth + 1 && ['auto', 'scroll', 'visible'].includes(getComputedStyle(element).overflowX) && getComputedStyle(element).display !== 'inline';
    return left < -1 || right > width + 1 || scrolls;
  }).map((element) => element.outerHTML.slice(0, 100));
}

/** Controls without an accessible name. */
function unnamed() {
  return [...document.querySelectorAll('button, input, textarea, select, [tabindex="0"]')].filter((element) => {
    const name = element.getAttribute('aria-label') || element.labels?.[0]?.textContent || element.textContent;
    return !name || name.trim() === '';
  }).map((element) => element.outerHTML);
}
