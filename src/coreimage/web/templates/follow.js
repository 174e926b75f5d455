
"use strict";
// Appends what is new in the log of a running build, and loads the page again when it is over.
const log = document.getElementById("log");
const state = document.getElementById("following");
const decoder = new TextDecoder();
let position = Number(log.dataset.position);
let rest = "";
function shown(line) {
  // Of a line that was overwritten, the last state; nothing that is not text.
  return line.replace(/\s+$/, "").replace(/^.*\r/, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}
async function look() {
  const answer = await fetch("log?from=" + position, {cache: "no-store"});
  if (!answer.ok) throw new Error(answer.status);
  const text = rest + decoder.decode(await answer.arrayBuffer(), {stream: true});
  const before = position;
  position = Number(answer.headers.get("x-log-position"));
  const lines = text.split("\n");
  rest = lines.pop();
  if (lines.length) {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    log.append(lines.map(shown).join("\n") + "\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
  if (position === before && !["pending", "running"].includes(answer.headers.get("x-build-status"))) {
    location.reload();
    return -1;
  }
  return position === before ? 1000 : 50;
}
async function follow() {
  let pause = 5000;
  try {
    pause = await look();
    state.textContent = "following";
  } catch {
    state.textContent = "the server does not answer, trying again";
  }
  if (pause >= 0) setTimeout(follow, pause);
}
log.scrollTop = log.scrollHeight;
if ("follow" in log.dataset) follow();
