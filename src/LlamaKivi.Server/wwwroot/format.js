// Figures as text.

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const whole = new Intl.NumberFormat('en');

export function count(value) {
  return whole.format(Math.round(value));
}

export function tokens(value) {
  return `${count(value)} ${value === 1 ? 'token' : 'tokens'}`;
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function rate(value) {
  return value >= 100 ? count(value) : value.toFixed(1);
}

export function percent(part, total) {
  return `${total > 0 ? Math.round((100 * part) / total) : 0}%`;
}
