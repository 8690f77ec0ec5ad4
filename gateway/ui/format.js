// Numbers, durations and times as people read them.

const NONE = "–";
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => (n === null || n === undefined ? NONE : grouped.format(n));

export function rate(perSecond) {
  if (perSecond === null) return NONE;
  if (perSecond >= 100) return grouped.format(perSecond);
  if (perSecond === 0) return "0";
  return perSecond >= 0.1 ? perSecond.toFixed(1) : "<0.1";
}

export function percent(share) {
  if (share === null) return NONE;
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(100 * share).toFixed(share >= 0.1 || share === 0 ? 0 : 1)}%`;
}

/** A number and its unit, for durations from a microsecond to an hour. */
export function seconds(s) {
  if (s === null || s === undefined || Number.isNaN(s)) return [NONE, ""];
  if (s < 0.001) return [(s * 1e6).toFixed(0), "µs"];
  if (s < 0.01) return [(s * 1e3).toFixed(1).replace(/\.0$/, ""), "ms"];
  if (s < 1) return [(s * 1e3).toFixed(0), "ms"];
  if (s < 10) return [s.toFixed(1).replace(/\.0$/, ""), "s"];
  if (s < 120) return [s.toFixed(0), "s"];
  return [(s / 60).toFixed(0), "min"];
}

export const shortSeconds = (s) => seconds(s).join(" ").trim();

/** How long something has been so, as a clock would show it: 4.2 s, 1:07, 3:05:00, 2 d 4 h. */
export function elapsed(s) {
  if (s < 10) return `${Math.max(0, s).toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const minutes = Math.floor(s / 60);
  const two = (n) => String(n).padStart(2, "0");
  if (minutes < 60) return `${minutes}:${two(Math.floor(s % 60))}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}:${two(minutes % 60)}:${two(Math.floor(s % 60))}`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago an instant was, roughly; `now` and the instant are of the same clock. */
export function ago(instant, now) {
  const s = Math.max(0, (now - Date.parse(instant)) / 1000);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** An argv on one line; words that a shell would split are quoted, so that one can see where they end. */
export function argv(words) {
  return words.map((word) => (/^[\w@%+=:,./…*~-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}
