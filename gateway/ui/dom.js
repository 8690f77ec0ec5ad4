// Elements, made and changed. Text goes in as text and nothing else: what others have named is never read as markup.

/** An element with these attributes and contents; `class`, `text` and `on` (listeners) are what they say. */
export function el(tag, attributes = {}, ...contents) {
  const node = tag === "svg" || svgTags.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...contents);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
const svgTags = new Set(["path", "line", "text", "g", "rect", "title"]);

export const byId = (id) => document.getElementById(id);

/** Changes nothing where nothing has changed: a page that is read aloud stays quiet, and one that is looked at still. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** A line at the bottom for some seconds; also for those who listen. */
export function tell(text, { bad = false } = {}) {
  const line = el("p", { text, class: bad ? "bad" : "" });
  byId("told").append(line);
  while (byId("told").children.length > 4) byId("told").firstChild.remove();
  setTimeout(() => line.remove(), bad ? 12_000 : 6_000);
}
