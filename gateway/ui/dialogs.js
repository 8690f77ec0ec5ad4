// What is asked before something is done that cannot be undone; and the keys. Enter, pressed by habit,
// does none of it: the button that leaves things as they are has the focus.

import { byId, el, setText } from "./dom.js";
import { argv, count, elapsed } from "./format.js";

// Who waits for a dialog that is open, or whose event of its closing is still on its way.
const waiting = new WeakMap();

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => {
    // It may have been opened again since: then this is not the closing that is waited for.
    if (dialog.open) return;
    waiting.get(dialog)?.(dialog.returnValue);
    waiting.delete(dialog);
  });
}

/** Opens a dialog; what it was closed with, which is nothing for Esc. */
function open(dialog) {
  waiting.get(dialog)?.("");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => waiting.set(dialog, resolve));
}

/** Whether to cancel this command. */
export async function confirmCancel(row) {
  setText(byId("cancel-argv"), argv(row.argv));
  const facts = [
    ["Cluster", row.cluster_id],
    ["Owner", row.owner],
    ["For", elapsed(row.seconds)],
    ["Conversation", row.correlation_id],
    ["Session", row.session_id],
    ["Command", row.command_id],
  ];
  byId("cancel-facts").replaceChildren(
    ...facts.filter(([, text]) => text).flatMap(([name, text]) => [el("dt", { text: name }), el("dd", { text })]),
  );
  return (await open(byId("cancel-dialog"))) === "yes";
}

/** How to drain this replica: {spread_seconds, reason}; null for not at all. */
export async function confirmDrain(row) {
  setText(byId("drain-title"), `Drain ${row.replica_id}?`);
  const executors = row.executors === 1 ? "Its executor is told" : `Its ${count(row.executors)} executors are told`;
  setText(byId("drain-what"), `${executors} to move to the other replicas.`);
  byId("drain-reason").value = "";
  if ((await open(byId("drain-dialog"))) !== "yes") return null;
  return { spread_seconds: Number(byId("drain-spread").value), reason: byId("drain-reason").value };
}

// No submit button: Enter in a field presses the first of those, and what was filled in is meant.
byId("drain-no").addEventListener("click", () => byId("drain-dialog").close());

export const showHelp = () => open(byId("help-dialog"));
