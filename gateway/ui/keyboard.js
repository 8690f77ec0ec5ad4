// What keys do, wherever one is on the page but in a field or a dialog.

import { showHelp } from "./dialogs.js";
import { byId } from "./dom.js";

export function listenToKeys(page) {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, dialog") !== null;
    const isForButton = (event.key === "Enter" || event.key === " ") && event.target.closest("button, a") !== null;
    if (page.stream === null || isTyping || isForButton || event.ctrlKey || event.metaKey || event.altKey) return;
    if (press(page, event.key)) event.preventDefault();
  });
}

/** Whether the key meant something. */
function press(page, name) {
  const table = page.tables.find((each) => each.hasFocus);
  switch (name) {
    case "/":
      byId("filter").focus();
      byId("filter").select();
      return true;
    case "j":
    case "ArrowDown":
      (table ?? page.commands.table).move(1);
      return true;
    case "k":
    case "ArrowUp":
      (table ?? page.commands.table).move(-1);
      return true;
    case "g":
      page.tables[(page.tables.indexOf(table) + 1) % page.tables.length].move(0);
      return true;
    case "p":
      page.pause(!page.isPaused);
      return true;
    case "t":
      page.nextTheme();
      return true;
    case "?":
      void showHelp();
      return true;
    case "Escape":
      page.filterBy("");
      return true;
    default:
  }
  if (name === "d" && table !== page.replicas.table) {
    page.replicas.table.move(0);
    return true;
  }
  const act = (table ?? page.commands.table).act[name];
  const row = (table ?? page.commands.table).chosen;
  if (act && row) act(row);
  return Boolean(act && row);
}
