// Work that a computer asked this phone for: `edge-ran benchmark|verify|run --device phone`. The page sends raw samples
// and answers; the computer does the statistics, with the code that every device's report uses.

import { abilities } from "./engine.js";

const BATCH_RUNS = 200;

export async function serveSession(state, session, say, show) {
  const api = new URL(`api/session/${encodeURIComponent(session)}/`, document.baseURI).href;
  const send = (what, record) =>
    fetch(`${api}${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(record) });
  await send("hello", await describe(state));
  for (;;) {
    const answer = await fetch(`${api}task`);
    if (!answer.ok) return say("The computer has ended the session. This page can be closed.");
    const task = await answer.json();
    if (task.kind === "wait") continue;
    if (task.kind === "end") return say("Done. This page can be closed.");
    try {
      await send("result", { task: task.id, ...(await tasks[task.kind](state, task, say, show, send)) });
    } catch (error) {
      await send("result", { task: task.id, error: error.message });
    }
  }
}

const tasks = {
  /** Samples of inferences back to back, by load. {sessions, runs, most_ms, warmup_runs} -> {sessions_ms, ...} */
  async benchmark(state, task, say) {
    const { engine } = state;
    const { pixels } = engine.check;
    say("Measuring. Keep this page in front and the screen on.");
    const lock = await navigator.wakeLock?.request("screen").catch(() => null);
    const battery = await batteryOf();
    const found = { sessions_ms: [], load_ms: [], first_ms: [], seconds: 0, hidden: document.hidden };
    for (let session = 0; session < task.sessions; session++) {
      if (session) await engine.loadAgain();
      const { worker, load_ms } = engine.serving;
      const time = async (runs) => (await worker.ask("time", { pixels, runs, most_ms: task.most_ms }, task.most_ms + 60_000)).samples_ms;
      found.load_ms.push(load_ms);
      found.first_ms.push((await time(1))[0]);
      await time(task.warmup_runs);
      const began = performance.now();
      const samples = [];
      const spent = () => performance.now() - began;
      while (spent() < task.most_ms && (samples.length < task.runs || spent() < task.least_ms)) {
        samples.push(...(await time(Math.min(BATCH_RUNS, Math.max(10, task.runs - samples.length)))));
        found.hidden ||= document.hidden;
      }
      found.seconds += spent() / 1000;
      found.sessions_ms.push(samples);
      say(`Measured ${session + 1} of ${task.sessions}. Keep this page in front and the screen on.`);
    }
    await lock?.release();
    return { ...found, clock_step_ms: clockStep(), battery: [battery, await batteryOf()], accelerator: engine.accelerator };
  },

  /** Outputs for the site's check pictures on both accelerators. -> {cpu, gpu} as arrays of numbers */
  async verify(state) {
    const { engine } = state;
    const of = async (one) => (one ? (await engine.answers(one, engine.check.pixels)).map((outputs) => outputs.map((o) => Array.from(o))) : null);
    const [cpu, gpu] = [await of(engine.cpu), await of(engine.gpu)];
    return { cpu, gpu, cpu_ms: engine.cpu.median_ms, gpu_ms: engine.gpu?.median_ms ?? null, accelerator: engine.accelerator };
  },

  /** Frames of this phone's camera, one record each. {frames} -> {frames} */
  async run(state, task, say, show, send) {
    await state.camera.open();
    say("");
    for (let index = 0; index < task.frames; index++) {
      const bitmap = await state.camera.picture();
      if (!bitmap) continue;
      const size = { width: bitmap.width, height: bitmap.height };
      const found = await state.engine.frame(bitmap);
      if (!found) continue;
      show(found, size);
      await send("frame", { task: task.id, index, outputs: found.outputs.map((o) => Array.from(o)), stages_ms: found.stages_ms, ...size });
    }
    return { frames: task.frames };
  },
};

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
