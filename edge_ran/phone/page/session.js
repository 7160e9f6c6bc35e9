// Work that a computer asked this phone for: `edge-ran benchmark|sustain|verify|run --device phone`. The page sends raw
// samples and answers; the computer does the statistics, with the code that every device's report uses.

import { abilities, limitOf } from "./engine.js";

const BATCH_RUNS = 200;
const BATCH_MS = 10_000;
const ALIVE_MS = 10_000;
const TRY_AGAIN_MS = 1000;
const GIVE_UP_MS = 30_000;
const KEY = "edge-ran session";
let parts = 0;

/** Work for the computer that invited this page, until it says that all is done. */
export async function serveSession(state, invitation, say, show) {
  const post = (name, what, record) =>
    fetch(api(name, what), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(record) });
  const session = await enter(state, invitation, post);
  if (!session) return say("Enough phones have come, or the session has ended. This page can be closed.");
  document.body.dataset.session = session;
  const send = async (what, record) => {
    const answer = await patiently(() => post(session, what, record), say);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `HTTP ${answer.status}`);
    return answer.json();
  };
  let failing = 0; // since when
  for (;;) {
    try {
      const answer = await fetch(api(session, "task"));
      if (!answer.ok) return say("The computer has ended the session. This page can be closed.");
      failing = 0;
      const task = await answer.json();
      if (task.kind === "wait") continue;
      if (task.kind === "end") return say("Done. This page can be closed.");
      await send("result", { task: task.id, ...(await work(state, task, say, show, send)) });
    } catch (error) {
      // No network for a moment: the task is given again to a page that asks.
      failing ||= performance.now();
      if (performance.now() - failing > GIVE_UP_MS) return say("The computer cannot be reached any more. This page can be closed.");
      say(`The computer cannot be reached (${error.message}). Trying again.`);
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }
}

/** Tell the computer that this page cannot start: it waits for a phone. */
export function tellFailure(invitation, error) {
  return fetch(api(invitation, "failed"), { method: "POST", body: JSON.stringify({ error }) }).catch(() => {}); // it is gone
}

// A network that is gone for a moment ends no task.
async function patiently(ask, say) {
  const began = performance.now();
  for (let failed = false; ; failed = true) {
    try {
      const answer = await ask();
      if (failed) say("");
      return answer;
    } catch (error) {
      if (performance.now() - began > GIVE_UP_MS) throw error;
      say(`The computer cannot be reached (${error.message}). Trying again.`);
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }
}

function api(name, what) {
  return new URL(`api/session/${encodeURIComponent(name)}/${what}`, document.baseURI).href;
}

// A session of this page's own: the one that it had before it was loaded again, else a new one. null: there is no place.
async function enter(state, invitation, post) {
  const hello = await describe(state);
  const kept = remembered(invitation);
  if (kept && (await post(kept, "hello", hello)).ok) return kept;
  const answer = await post(invitation, "hello", hello);
  if (!answer.ok) return null;
  const { session } = await answer.json();
  try {
    localStorage.setItem(KEY, JSON.stringify({ invitation, session }));
  } catch {
    // This browser keeps nothing: a page that is loaded again is a new one.
  }
  return session;
}

function remembered(invitation) {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return kept?.invitation === invitation ? kept.session : null;
  } catch {
    return null;
  }
}

async function work(state, task, say, show, send) {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  // The name tells the computer which part comes again because its answer was lost.
  const part = (told) => send("part", { task: task.id, name: `${performance.timeOrigin} ${++parts}`, part: told });
  try {
    return await tasks[task.kind](state, task, say, show, part);
  } catch (error) {
    return { error: error.message };
  } finally {
    await lock?.release().catch(() => {});
  }
}

const tasks = {
  /** Samples of inferences back to back, by load. {sessions, runs, least_ms, most_ms, warmup_runs} -> {sessions_ms, ...} */
  async benchmark(state, task, say, show, part) {
    const { engine } = state;
    const { pixels } = engine.check;
    say("Measuring. Keep this page in front and the screen on.");
    const battery = await batteryOf();
    const tellAlive = signsOfLife(part);
    const found = { sessions_ms: [], load_ms: [], first_ms: [], seconds: 0, hidden: document.hidden };
    for (let session = 0; session < task.sessions; session++) {
      await engine.loadAgain(); // the first one, too: what the page loaded has run the check pictures
      const { worker, load_ms } = engine.serving;
      const time = async (runs, most_ms = task.most_ms) => (await worker.ask("time", { pixels, runs, most_ms }, most_ms + 60_000)).samples_ms;
      found.load_ms.push(load_ms);
      found.first_ms.push((await time(1))[0]);
      await time(task.warmup_runs);
      const began = performance.now();
      const samples = [];
      const spent = () => performance.now() - began;
      while (spent() < task.most_ms && (samples.length < task.runs || spent() < task.least_ms)) {
        samples.push(...(await time(Math.min(BATCH_RUNS, Math.max(10, task.runs - samples.length)), Math.min(BATCH_MS, task.most_ms))));
        tellAlive();
        found.hidden ||= document.hidden;
      }
      found.seconds += spent() / 1000;
      found.sessions_ms.push(samples);
      say(`Measured ${session + 1} of ${task.sessions}. Keep this page in front and the screen on.`);
      document.body.dataset.measured = session + 1;
    }
    await stillRight(engine);
    return { ...found, clock_step_ms: clockStep(), battery: [battery, await batteryOf()], accelerator: engine.accelerator };
  },

  /** Inferences without a pause, a part for each window of time. {seconds, windows} -> {accelerator} */
  async sustain(state, task, say, show, part) {
    const { engine } = state;
    const { pixels } = engine.check;
    const { worker } = engine.serving;
    const time = async (runs, most_ms) => (await worker.ask("time", { pixels, runs, most_ms }, most_ms + 60_000)).samples_ms;
    await time(task.warmup_runs, 60_000);
    const began = performance.now();
    let sent = Promise.resolve();
    let goOn = true;
    for (let index = 0; index < task.windows; index++) {
      const left = began + (1000 * task.seconds * (index + 1)) / task.windows - performance.now();
      const samples_ms = await time(1e9, Math.max(1, left));
      if (!goOn) break;
      const at_s = (performance.now() - began) / 1000;
      const told = { index, at_s, samples_ms, hidden: document.hidden, battery: await batteryOf() };
      // Not waited for: a phone whose network is gone for a moment would cool.
      sent = sent.then(() => part(told)).then(
        (answer) => void (goOn = answer.go_on),
        (error) => {
          goOn = false;
          throw error;
        },
      );
      say(`${Math.round(task.seconds - at_s)} s left. Keep this page in front and the screen on.`);
      document.body.dataset.windows = index + 1;
    }
    await sent;
    await stillRight(engine);
    return { accelerator: engine.accelerator };
  },

  /** Outputs for the site's check pictures on both accelerators. -> {cpu, gpu} as arrays of numbers */
  async verify(state, task, say, show, part) {
    const { engine } = state;
    const tellAlive = signsOfLife(part);
    const of = async (one) => {
      const found = [];
      for (const pixels of engine.check.pixels) {
        const [outputs] = await engine.answers(one, [pixels], limitOf(one));
        found.push(outputs.map((o) => Array.from(o)));
        tellAlive();
      }
      return found;
    };
    const cpu = await of(engine.cpu);
    // A GPU that hangs now has passed the page's own check: that is an answer, too.
    const gpu = engine.gpu && (await of(engine.gpu).catch((error) => (engine.leaveGpu(error.message), null)));
    return { cpu, gpu, cpu_ms: engine.cpu.median_ms, gpu_ms: engine.gpu?.median_ms ?? null, accelerator: engine.accelerator };
  },

  /** Frames of this phone's camera, a part for each, until the computer wants no more. {pictures, camera} -> {frames} */
  async run(state, task, say, show, part) {
    const { camera, engine } = state;
    let frames = 0;
    camera.facing = task.camera === "front" ? "user" : "environment";
    try {
      await camera.open();
      say("");
      for (let goOn = true; goOn; ) {
        const found = await nextFrame(state, say, task.pictures);
        if (!found) continue;
        const { size, arrived, picture } = found;
        show(found, size);
        const stages_ms = { ...found.stages_ms, end_to_end: performance.now() - arrived };
        const { checks, ...accelerator } = engine.accelerator;
        const outputs = found.outputs.map((o) => Array.from(o));
        document.body.dataset.sent = ++frames;
        ({ go_on: goOn } = await part({ outputs, stages_ms, ...size, picture, accelerator: { ...accelerator, checks: {} } }));
      }
    } finally {
      camera.close();
    }
    return { frames };
  },
};

// Classify the camera's next picture; null where there is none. A lost camera is opened again.
async function nextFrame(state, say, wantsPicture) {
  const { camera, engine } = state;
  if (camera.track?.readyState !== "live") {
    say("The camera was lost. Trying to open it again.");
    await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    await camera.open().then(() => say(""), (error) => say(error.message));
    return null;
  }
  const bitmap = await camera.picture();
  if (!bitmap) return null;
  const arrived = performance.now();
  const size = { width: bitmap.width, height: bitmap.height };
  const picture = wantsPicture ? await jpegOf(bitmap) : "";
  const found = await engine.frame(bitmap);
  return found && { ...found, size, arrived, picture };
}

async function jpegOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

// A function that sends an empty part now and then: the place of a page that says nothing goes to another phone. Nobody
// waits for it, nor is it missed.
function signsOfLife(part) {
  let told = performance.now();
  return () => {
    if (performance.now() - told < ALIVE_MS) return;
    told = performance.now();
    part({}).catch(() => {});
  };
}

// Times of a GPU that has become wrong meanwhile are of no use.
async function stillRight(engine) {
  if (engine.accelerator.actual !== "gpu") return;
  await engine.checkAgain();
  if (engine.accelerator.actual !== "gpu") throw new Error(engine.accelerator.reason);
}

async function describe(state) {
  const hints = await navigator.userAgentData?.getHighEntropyValues(["model", "platform", "platformVersion"]).catch(() => null);
  return {
    user_agent: navigator.userAgent,
    model: hints?.model ?? "",
    platform: hints?.platform ?? navigator.platform ?? "",
    cores: navigator.hardwareConcurrency ?? 0,
    memory_gb: navigator.deviceMemory ?? null,
    abilities: abilities(),
    accelerator: state.engine.accelerator,
    load_ms: state.engine.serving.load_ms,
  };
}

async function batteryOf() {
  const battery = await navigator.getBattery?.().catch(() => null);
  return battery ? { level: battery.level, charging: battery.charging } : null;
}

function clockStep() {
  let step = Infinity;
  for (let i = 0; i < 50; i++) {
    const first = performance.now();
    let next = first;
    while (next === first) next = performance.now();
    step = Math.min(step, next - first);
  }
  return step;
}
