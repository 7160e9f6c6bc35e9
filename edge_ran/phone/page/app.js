// The page: shows what the camera sees and what the network says of it.

import { probabilities, Smoother, UNKNOWN } from "./answer.js";
import { Camera, pictureOf } from "./camera.js";
import { abilities, Engine } from "./engine.js";
import { drawMask } from "./mask.js";
import { serveSession, tellFailure } from "./session.js";

const BASE = new URL(".", import.meta.url).href;
const SHOWN = 3;
const at = (id) => document.getElementById(id);
const state = { paused: false, pictures: 0, masks: true, frames: [], engine: null, config: null, smoother: null, camera: new Camera(at("video")) };

function say(text) {
  at("message").textContent = text;
}

// Keep the site for use without a network. What was kept may be another site of this address: a newer one is shown at
// once, and for a session, which measures, nothing that was kept is used. Returns false where the page loads again.
async function keepOffline(hasSession) {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return true;
  if (!hasSession) {
    if (serviceWorker.controller) serviceWorker.addEventListener("controllerchange", () => location.reload());
    serviceWorker.register("sw.js").catch(() => {}); // no offline use then
    return true;
  }
  const kept = await serviceWorker.getRegistration().catch(() => null);
  if (!kept) return true;
  await kept.unregister();
  for (const name of await caches.keys()) if (name.startsWith(`edge-ran-${kept.scope} `)) await caches.delete(name);
  location.reload();
  return false;
}

async function start() {
  const asked = new URLSearchParams(location.search);
  const hasSession = asked.has("session");
  // There the computer decides what is measured and seen: a pause or another picture would be taken for the phone's.
  if (hasSession) for (const id of ["pause", "turn", "torch", "gallery"]) at(id).hidden = true;
  if (!(await keepOffline(hasSession))) return;
  const config = await (await fetch(`${BASE}config.json`)).json();
  state.config = config;
  state.smoother = new Smoother(config.answer);
  document.title = `${config.name} – edge-ran`;
  state.engine = new Engine(BASE, config, { accelerator: asked.get("accelerator") ?? "auto", tell: say, changed: showAccelerator });
  await state.engine.start();
  if (!(await state.engine.pixelsAreTrue())) {
    state.engine.accelerator.false_pixels = true;
  }
  showAccelerator();
  document.body.dataset.ready = state.engine.accelerator.actual;
  bindButtons();
  if (hasSession) {
    await serveSession(state, asked.get("session"), say, showResult);
    return;
  }
  await openCamera();
  loop();
}

async function openCamera() {
  state.torch = false; // a camera that is opened is dark
  at("torch").setAttribute("aria-pressed", "false");
  at("torch").hidden = true;
  state.camera.onend = say;
  try {
    await state.camera.open();
    say("");
    at("torch").hidden = !state.camera.hasTorch;
  } catch (error) {
    say(error.message);
    document.body.dataset.camera = "none";
  }
}

async function loop() {
  let hasFailed = false;
  for (;;) {
    if (state.paused || !state.camera.stream || document.hidden) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      continue;
    }
    try {
      const bitmap = await state.camera.picture();
      if (state.paused) bitmap?.close();
      else if (bitmap) {
        await classify(bitmap, () => !state.paused);
        if (hasFailed) say("");
        hasFailed = false;
      }
    } catch (error) {
      hasFailed = true;
      say(error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

// Show what a picture is, unless something else is to be seen by then. false: the GPU has just been left, and the next
// picture runs on the CPU.
async function classify(bitmap, isWanted) {
  const size = { width: bitmap.width, height: bitmap.height };
  const found = await state.engine.frame(bitmap);
  if (found && isWanted()) showResult(found, size);
  return Boolean(found);
}

function showResult(found, size) {
  const now = performance.now();
  state.frames = [...state.frames.filter((t) => now - t < 2000), now];
  const scores = probabilities(found.outputs[0], { ...state.config.answer, least: leastOf() });
  const smoothed = state.smoother.take(scores, now / 1000);
  showAnswer(smoothed);
  at("latency").textContent = `${found.stages_ms.inference.toFixed(1)} ms`;
  at("fps").textContent = state.frames.length > 2 ? ((1000 * (state.frames.length - 1)) / (now - state.frames[0])).toFixed(1) : "–";
  if (state.config.masks.length) {
    at("masks").hidden = false;
    drawMask(at("mask"), state.masks ? found.outputs.slice(1) : [], state.config, size);
  }
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
  return smoothed;
}

function leastOf() {
  const { scale } = state.engine.serving.file.outputs[0];
  return scale > 0 ? scale / 2 : 1e-12;
}

function showAnswer({ scores, answer, changed }) {
  const { labels } = state.config;
  if (changed) {
    at("label").textContent = answer === UNKNOWN ? "unknown" : labels[answer];
    at("label").className = answer === UNKNOWN ? "unknown" : "";
    document.body.dataset.label = at("label").textContent;
  }
  const order = Array.from(scores, (_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, SHOWN);
  at("scores").replaceChildren(...order.map((i) => row(labels[i], scores[i])));
}

function row(label, score) {
  const item = document.createElement("li");
  const [name, value, bar] = ["span", "b", "progress"].map((tag) => document.createElement(tag));
  name.textContent = label;
  value.textContent = `${Math.round(100 * score)} %`;
  Object.assign(bar, { max: 1, value: score });
  bar.setAttribute("aria-hidden", "true");
  item.append(name, value, bar);
  return item;
}

function showAccelerator() {
  const { actual, adapter, reason, is_software, false_pixels } = state.engine.accelerator;
  at("accelerator").textContent = `${actual === "gpu" ? "GPU" : "CPU"}, ${adapter}${is_software ? " (software)" : ""}`;
  const reasons = reason ? [`GPU not used: ${reason}.`] : [];
  if (false_pixels) reasons.push("This browser changes the pixels of pictures, as a protection against tracking: answers may differ.");
  at("reason").textContent = reasons.join(" ");
}

function bindButtons() {
  const toggle = (id, key, act) =>
    at(id).addEventListener("click", async () => {
      state[key] = !state[key];
      at(id).setAttribute("aria-pressed", String(state[key]));
      await act?.(state[key]);
    });
  toggle("pause", "paused", async (paused) => {
    at("still").hidden = true;
    if (!paused) state.smoother = new Smoother(state.config.answer); // of the camera alone, not of a picture before
    if (!paused && !state.camera.track?.enabled) await openCamera();
    if (!paused && state.camera.track?.readyState === "ended") await openCamera();
  });
  toggle("masks", "masks");
  toggle("torch", "torch", (on) => state.camera.torch(on));
  at("turn").addEventListener("click", () => {
    state.camera.turn();
    return openCamera();
  });
  at("gallery").addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && at("file").click());
  at("file").addEventListener("change", () => {
    const [file] = at("file").files;
    if (!file) return;
    showPicture(file);
    at("file").value = ""; // so that the same one, chosen again, is a change
  });
}

async function showPicture(file) {
  state.paused = true;
  at("pause").setAttribute("aria-pressed", "true");
  const number = ++state.pictures;
  const isWanted = () => state.paused && number === state.pictures;
  try {
    const bitmap = await pictureOf(file);
    if (!isWanted()) return bitmap.close();
    const still = at("still");
    Object.assign(still, { width: bitmap.width, height: bitmap.height, hidden: false });
    still.getContext("2d").drawImage(bitmap, 0, 0);
    state.smoother = new Smoother(state.config.answer);
    if (!(await classify(bitmap, isWanted))) await classify(await pictureOf(file), isWanted);
    say("");
  } catch (error) {
    say(`This picture cannot be read: ${error.message}`);
  }
}

start().catch((error) => {
  const invitation = new URLSearchParams(location.search).get("session");
  if (invitation) tellFailure(invitation, error.message);
  say(error.message);
  at("label").textContent = "not available";
  document.body.dataset.failed = error.message;
  document.body.dataset.abilities = JSON.stringify(abilities());
});
