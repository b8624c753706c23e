// Sends what is drawn or dropped to predict, and shows what comes back. Texts of
// the model go in as text, never as HTML.
"use strict";

const at = (id) => document.getElementById(id);
const canvas = at("canvas");
const pen = canvas.getContext("2d");
const kMostBars = 10;

let card = null;
let image = null; // a Blob that waits to be sent
let sending = false;
let hasInk = false;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, isError) {
  at("best").textContent = text;
  at("best").className = isError ? "error" : "";
}

async function ask(path, options = {}) {
  const key = at("key").value;
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { ...options, headers });
  const body = await response.json();
  if (response.status === 401) at("key-field").hidden = false;
  if (!response.ok) throw new Error(body.error);
  return body;
}

function tensors(list) {
  return list.map((t) => `${t.name} ${t.datatype} [${t.shape.map((s) => (s < 0 ? "N" : s)).join(", ")}]`).join("; ");
}

function labelsOf(labels) {
  const shown = labels.slice(0, 20).join(", ");
  return `${labels.length}: ${shown}${labels.length > 20 ? ", ..." : ""}`;
}

function showCard() {
  const rows = [
    ["Name", card.name],
    ["Input", tensors(card.inputs)],
    ["Output", tensors(card.outputs)],
    ["Labels", card.labels.length ? labelsOf(card.labels) : "none: tensors only, by the API"],
    ["File", `${(card.bytes / 1e6).toFixed(2)} MB, written by convship ${card.convship}, torch ${card.torch}`],
    ["SHA-256", card.sha256, "mono"],
    ["Requests share calls", card.batches ? "yes" : "no"],
  ];
  at("card").replaceChildren(...rows.flatMap(([name, text, style]) => [element("dt", name), element("dd", text, style)]));
}

// The best classes; where all fit, in the order of the labels, so that bars stay in place.
function showAnswer(predictions) {
  const fits = card.labels.length <= kMostBars;
  const best = predictions[0];
  say(`${best.label}, ${(100 * best.probability).toFixed(1)} %`);
  const rows = predictions.slice(0, kMostBars);
  if (fits) rows.sort((a, b) => a.index - b.index);
  const list = at("bars");
  while (list.children.length > rows.length) list.lastChild.remove();
  list.className = fits && card.labels.every((label) => label.length < 4) ? "short" : "";
  rows.forEach((row, i) => {
    if (i === list.children.length) {
      const track = element("div", undefined, "track");
      track.append(element("div", undefined, "bar"));
      const item = element("li");
      item.append(element("span", "", "name"), track, element("span", "", "value"));
      list.append(item);
    }
    const item = list.children[i];
    item.className = row.index === best.index ? "top" : "";
    item.children[0].textContent = row.label;
    item.children[0].title = row.label;
    item.querySelector(".bar").style.width = `${100 * row.probability}%`;
    item.children[2].textContent = `${(100 * row.probability).toFixed(1)} %`;
  });
}

// One request at a time; of those that came meanwhile, the last one counts.
async function send() {
  if (sending || !card) return;
  sending = true;
  at("bars").ariaBusy = "true";
  while (image) {
    const body = image;
    image = null;
    try {
      const begin = performance.now();
      const answer = await ask(`v2/models/${card.name}/predict?top_k=${kMostBars}`, { method: "POST", body });
      at("latency").textContent = `Answered in ${(performance.now() - begin).toFixed(1)} ms, network and browser included.`;
      showAnswer(answer.predictions);
    } catch (error) {
      say(error.message, true);
    }
  }
  sending = false;
  at("bars").ariaBusy = "false";
}

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  hasInk = false;
  image = null;
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

let last = null;

function stroke(to) {
  if (!hasInk) clear();
  hasInk = true;
  pen.strokeStyle = "#fff";
  pen.lineWidth = 26;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...to);
  pen.stroke();
  last = to;
  canvas.toBlob((blob) => {
    image = blob;
    send();
  }, "image/png");
}

async function show(file) {
  clear();
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    pen.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  } catch {
    // The browser cannot show it; the server says what it thinks of it.
  }
  image = file;
  send();
}

async function choose(name) {
  try {
    card = await ask(`v2/models/${name}/card`);
    showCard();
    at("bars").replaceChildren();
    say(card.labels.length ? "Nothing to classify yet." : "This model takes tensors, not images.");
    send();
  } catch (error) {
    say(error.message, true);
  }
}

async function start() {
  try {
    const { models } = await ask("v2/models");
    at("key-field").hidden = !at("key").value;
    at("model").replaceChildren(...models.map((name) => new Option(name, name)));
    at("choice").hidden = models.length < 2;
    await choose(models[0]);
  } catch (error) {
    say(error.message, true);
  }
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = point(event);
  stroke(last);
});
canvas.addEventListener("pointermove", (event) => last && stroke(point(event)));
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = null));
at("clear").addEventListener("click", () => {
  clear();
  at("bars").replaceChildren();
  at("latency").textContent = "";
  say("Nothing to classify yet.");
});
at("file").addEventListener("change", (event) => event.target.files[0] && show(event.target.files[0]));
at("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").className = "over";
});
at("drop").addEventListener("dragleave", () => (at("drop").className = ""));
at("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").className = "";
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
});
at("model").addEventListener("change", (event) => choose(event.target.value));
at("key").addEventListener("change", start);

clear();
start();
