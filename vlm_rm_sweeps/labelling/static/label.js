// The label page. It keeps no labels: the next item is shown only after the server has stored the answer to the last one.
"use strict";

const element = (id) => document.getElementById(id);
const RATER = "vlm-rm-rater";
const SMALL_PIXELS = 200; // images up to this size are enlarged without smoothing
const KEY_NAMES = { arrowleft: "\u2190", arrowdown: "\u2193", arrowright: "\u2192" };

let job = null;
let rater = null;
let progress = null;
let busy = true; // keys and buttons do nothing until an item is visible, or while a request is running
let unseen = false; // the item could not be shown: it can only be skipped

function say(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.status === 409) {
    say(answer.message);
    return answer.progress;
  }
  if (!response.ok) throw new Error(answer.message || answer.detail || response.statusText);
  say("");
  return answer;
}

function setBusy(now) {
  busy = now;
  for (const button of document.querySelectorAll("#work button, #done button")) button.disabled = now;
  if (!now) {
    for (const button of document.querySelectorAll("#answers button")) button.disabled = unseen;
    element("undo").disabled = element("undo-last").disabled = progress.last === null;
    element("again").disabled = progress.skipped === 0;
  }
}

// Sends one request at a time; keys pressed meanwhile are ignored. Errors are shown, and the answer can be given again.
async function send(path, body) {
  if (busy) return;
  setBusy(true);
  let received = null;
  try {
    received = await ask(path, body);
  } catch (error) {
    const lost = error instanceof TypeError; // what fetch throws without a connection
    say(lost ? "Not saved: the label server does not respond. Check that `vlm-rm label` is running, then answer again." : `Not saved: ${error.message}`);
  }
  if (received) await show(received);
  else setBusy(false);
}

const mayAnswer = (value) => progress.next && !(unseen && value !== null);
const answer = (value) => mayAnswer(value) && send("/api/labels", { rater, item: progress.next.id, value });
const undo = () => progress.last !== null && send("/api/undo", { rater, number: progress.last });

function load(item) {
  return new Promise((resolve, reject) => {
    const view = document.createElement(item.video ? "video" : "img");
    view.addEventListener("error", () => reject(new Error("This item cannot be shown because its file is missing or damaged. Skip it.")));
    if (item.video) {
      Object.assign(view, { controls: true, loop: true, muted: true, autoplay: true, playsInline: true });
      view.addEventListener("loadeddata", () => resolve(view));
    } else {
      view.alt = item.name;
      view.addEventListener("load", () => {
        view.classList.toggle("small", Math.max(view.naturalWidth, view.naturalHeight) <= SMALL_PIXELS);
        resolve(view);
      });
    }
    view.src = `/items/${item.id}`;
  });
}

// One view, or two side by side; none is shown unless all of them can be.
function loadAll(shown) {
  const names = shown.length === 2 ? ["the left state", "the right state"] : ["the state to judge"];
  return Promise.all(shown.map((item, index) => load({ ...item, name: names[index] })));
}

async function show(received) {
  progress = received;
  const done = progress.answered + progress.skipped;
  element("progress").hidden = false;
  element("bar").value = done;
  element("bar").max = progress.total;
  const skipped = progress.skipped ? `, ${progress.skipped} skipped` : "";
  element("counts").textContent = `${progress.answered} of ${progress.total} answered${skipped}`;
  element("work").hidden = progress.next === null;
  element("done").hidden = progress.next !== null;
  if (progress.next === null) {
    await showDone();
  } else {
    element("stage").classList.add("waiting");
    unseen = true;
    try {
      element("stage").replaceChildren(...await loadAll(progress.next.shown));
      unseen = false;
    } catch (error) {
      element("stage").replaceChildren();
      say(error.message);
    }
    element("stage").classList.remove("waiting");
    element("stage").dataset.item = progress.next.id;
    element("stage").classList.toggle("pair", progress.next.shown.length === 2);
    for (const item of progress.after ? progress.after.shown : []) if (!item.video) new Image().src = `/items/${item.id}`;
  }
  setBusy(false);
}

async function showDone() {
  const skipped = progress.skipped ? ` and skipped ${progress.skipped}` : "";
  element("summary").textContent = `You answered ${progress.answered} of ${progress.total}${skipped}. Everything is saved.`;
  let pairs = [];
  try {
    pairs = await ask("/api/agreement");
  } catch (error) {
    say("The agreement between raters cannot be shown now. All answers are saved.");
  }
  element("agreement").hidden = pairs.length === 0;
  element("pairs").replaceChildren(...pairs.map((pair) => {
    const row = document.createElement("tr");
    const share = pair.equal === null ? "-" : `${Math.round(100 * pair.equal)} %`;
    const kappa = pair.kappa === null ? "-" : pair.kappa.toFixed(2);
    for (const text of [`${pair.first}, ${pair.second}`, pair.items, share, kappa]) row.insertCell().textContent = text;
    return row;
  }));
}

async function begin(name) {
  try {
    const received = await ask(`/api/raters/${encodeURIComponent(name)}`);
    rater = name;
    localStorage.setItem(RATER, name);
    element("rater").textContent = name;
    element("who").hidden = false;
    element("start").hidden = true;
    await show(received);
  } catch (error) {
    askForName();
    say(error.message);
  }
}

function askForName() {
  busy = true;
  for (const id of ["who", "work", "done", "progress"]) element(id).hidden = true;
  element("start").hidden = false;
  element("name").value = localStorage.getItem(RATER) || "";
  element("name").focus();
}

function button(each) {
  const made = document.createElement("button");
  const key = document.createElement("kbd");
  key.textContent = KEY_NAMES[each.key] || each.key;
  made.append(key, ` ${each.text}`);
  made.dataset.value = each.value;
  made.addEventListener("click", () => answer(each.value));
  return made;
}

function onKey(event) {
  // A key held down answers once; keys with modifiers or in a text field are left to the browser.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT" || busy) return;
  const key = event.key.toLowerCase();
  const chosen = job.answers.find((each) => each.key === key);
  if (chosen) {
    event.preventDefault(); // an arrow would scroll the page
    answer(chosen.value);
  }
  else if (key === "s") answer(null);
  else if (key === "z") undo();
}

async function main() {
  job = await ask("/api/job");
  document.title = `Label: ${job.title}`;
  element("title").textContent = job.title;
  element("question").textContent = job.question;
  element("criterion").textContent = job.criterion;
  element("answers").replaceChildren(...job.answers.map(button));
  element("skip").addEventListener("click", () => answer(null));
  element("undo").addEventListener("click", undo);
  element("undo-last").addEventListener("click", undo);
  element("again").addEventListener("click", () => send("/api/skipped", { rater }));
  element("switch").addEventListener("click", askForName);
  element("start").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(element("name").value.trim());
  });
  document.addEventListener("keydown", onKey);
  const known = localStorage.getItem(RATER);
  if (known) await begin(known);
  else askForName();
}

main().catch((error) => say(`The page could not start: ${error.message}`));
