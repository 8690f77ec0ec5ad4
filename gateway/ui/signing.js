// The key: asked for, kept in this page, and in this tab where that is wanted; shown nowhere.

import { byId, setText } from "./dom.js";

const NAME = "openline.key";

function remembered() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

function remember(key) {
  try {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch {
    // Then it holds for this page.
  }
}

/** Calls `begin(key)` when there is one: that of this tab, or what is typed. */
export function start(begin) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("key");
    const key = field.value.trim();
    // Header values are these characters, and so are keys.
    if (!/^[!-~]{1,4096}$/.test(key)) {
      setText(byId("key-error"), "That cannot be a key: it has visible ASCII characters only.");
      return;
    }
    if (byId("remember").checked) remember(key);
    field.value = "";
    setText(byId("key-error"), "");
    begin(key);
  });
  const key = remembered();
  if (key) begin(key);
  else ask("");
}

/** Back to the form; the key is forgotten. `why` is shown. */
export function ask(why) {
  remember("");
  byId("live").hidden = true;
  byId("sign-in").hidden = false;
  setText(byId("key-error"), why);
  byId("key").focus();
}

export function show() {
  byId("sign-in").hidden = true;
  byId("live").hidden = false;
}
