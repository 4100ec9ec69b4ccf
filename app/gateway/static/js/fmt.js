// Numbers as a desk reads them: U+2212 minus, separators, an em dash for what is not known. Pure functions.
const cache = new Map();
export const DASH = "—";

export function number(value, decimals) {
  if (value === null || value === undefined) return DASH;
  let f = cache.get(decimals);
  if (!f) {
    f = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    cache.set(decimals, f);
  }
  const text = f.format(value);
  return text.startsWith("-") ? (/[1-9]/.test(text) ? "−" + text.slice(1) : text.slice(1)) : text;
}

export function signed(value, decimals) {
  const text = number(value, decimals);
  return value > 0 && /[1-9]/.test(text) ? "+" + text : text;
}

export function short(value, withSign = false) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  const [div, unit] = size >= 1e9 ? [1e9, "B"] : size >= 1e6 ? [1e6, "M"] : size >= 1e3 ? [1e3, "k"] : [1, ""];
  const text = number(value / div, unit ? (size / div >= 100 ? 0 : 1) : 0) + unit;
  return withSign && value > 0 ? "+" + text : text;
}

export function quantity(value) {
  if (value === null || value === undefined) return DASH;
  return number(value, Number.isInteger(value) ? 0 : Math.min(8, (String(value).split(".")[1] || "").length));
}

export function price(value) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  return number(value, size >= 1000 ? 2 : size >= 10 ? 3 : 5);
}

export function age(ms) {
  if (ms === null || ms === undefined) return "no data";
  return ms < 10000 ? number(Math.max(ms, 0) / 1000, 1) + " s" : ms < 600000 ? number(ms / 1000, 0) + " s"
    : number(ms / 60000, 0) + " min";
}

export const tone = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
