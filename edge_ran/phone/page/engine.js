// Chooses what runs the network: right before fast.
//
// WebAssembly on the CPU is checked against the answers that the host recorded. A GPU is checked against WebAssembly,
// with the first picture again at the end, and again while it runs: some are right once only. What is wrong, slower or
// stuck is not used, and the reason is told.

import { compareAll } from "./agreement.js";

const LOAD_MS = 60_000; // a phone compiles shaders for seconds
const RUN_MS = 8_000;
const CHECK_EVERY_MS = 20_000;
const TIMED_RUNS = 15;

/** What a browser can do here. */
export function abilities() {
  return {
    relaxed_simd: WebAssembly.validate(RELAXED_SIMD),
    jspi: "Suspending" in WebAssembly,
    webgpu: "gpu" in navigator,
    isolated: self.crossOriginIsolated === true,
  };
}

// A module with one relaxed SIMD instruction, i8x16.relaxed_swizzle.
const RELAXED_SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
]);

class TimedWorker {
  constructor(base) {
    this.worker = new Worker(`${base}worker.js`);
    this.waiting = new Map();
    this.next = 0;
    this.ended = ""; // why
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject, timer } = this.waiting.get(data.id) ?? {};
      if (!resolve) return;
      clearTimeout(timer);
      this.waiting.delete(data.id);
      data.error ? reject(new Error(data.error)) : resolve(data);
    };
    this.worker.onerror = (event) => this.end(`the worker stopped: ${event.message || "unknown error"}`);
  }

  ask(type, request, limit_ms, transfer = []) {
    if (this.ended) return Promise.reject(new Error(this.ended));
    return new Promise((resolve, reject) => {
      const id = this.next++;
      const timer = setTimeout(() => this.end(`no answer within ${limit_ms / 1000} s`), limit_ms);
      this.waiting.set(id, { resolve, reject, timer });
      this.worker.postMessage({ id, type, ...request }, transfer);
    });
  }

  end(reason) {
    this.ended ||= reason;
    this.worker.terminate();
    for (const { reject, timer } of this.waiting.values()) {
      clearTimeout(timer);
      reject(new Error(reason));
    }
    this.waiting.clear();
  }
}

/** The network on what serves it best. Use start(), then frame(); `accelerator` tells what serves and why. */
export class Engine {
  constructor(base, config, { accelerator = "auto", tell = () => {}, changed = () => {} } = {}) {
    Object.assign(this, { base, config, wanted: accelerator, tell, changed });
    this.accelerator = { actual: "", adapter: "", reason: "", is_software: false, checks: {} };
    this.cpu = null;
    this.gpu = null;
    this.reopening = null;
    this.checked_at = 0;
  }

  async start() {
    this.check = await this.readCheck();
    await this.startCpu();
    if (this.wanted === "cpu") {
      this.accelerator.reason = "the CPU was asked for";
      return;
    }
    await this.tryGpu();
  }

  async readCheck() {
    const { check } = this.config;
    const bytes = new Uint8Array(await (await fetch(`${this.base}${check.pixels}`)).arrayBuffer());
    const size = bytes.length / check.pictures;
    return { pixels: Array.from({ length: check.pictures }, (_, i) => bytes.slice(i * size, (i + 1) * size)) };
  }

  async startCpu() {
    const file = this.config.files.find((one) => one.runs_on.includes("wasm"));
    const build = abilities().relaxed_simd ? "default" : "compat";
    this.tell(`loading ${file.path} for the CPU`);
    this.cpu = await this.open("wasm", build, file);
    const answers = await this.answers(this.cpu, this.check.pixels);
    const expected = await this.expected(file);
    const found = compareAll(expected, answers, file.outputs, this.config.limits, file.allowed_error);
    this.accelerator = {
      actual: "cpu", adapter: `WebAssembly (${build})`, reason: "", is_software: false, file: file.path, checks: { cpu: found }, load_ms: this.cpu.load_ms,
    };
    if (!found.is_right) throw new Error(`this browser computes wrong answers: ${words(found)}`);
    this.reference = answers;
    this.cpu.median_ms = await this.medianOf(this.cpu);
  }

  async tryGpu() {
    const reason = await this.gpuRefusal();
    if (!reason) return;
    this.gpu?.worker.end("not used");
    this.gpu = null;
    this.accelerator.reason = reason;
    this.tell(`the GPU is not used: ${reason}`);
  }

  // "" when the GPU serves from now on, else why not.
  async gpuRefusal() {
    const can = abilities();
    const suited = this.config.files.filter((one) => one.runs_on.includes("webgpu"));
    const file = suited.find((one) => !one.needs_jspi) ?? suited[0];
    if (!can.webgpu) return "this browser has no WebGPU, or the page is not served over https";
    if (!file) return "no file of this site suits a GPU";
    if (!(await navigator.gpu.requestAdapter().catch(() => null))) return "WebGPU finds no GPU";
    const build = can.relaxed_simd ? (can.jspi ? "jspi" : "default") : "compat";
    if (build !== "jspi" && file.needs_jspi) return "this file needs a browser with JSPI on the GPU";
    this.tell(`trying ${file.path} on the GPU`);
    try {
      this.gpu = await this.open("webgpu", build, file);
      const { pixels } = this.check;
      const answers = await this.answers(this.gpu, [...pixels, pixels[0]]);
      const again = answers.pop();
      // Of another file than the CPU's, the answers that the host recorded.
      this.gpu.reference = file === this.cpu.file ? this.reference : await this.expected(file);
      const compare = (right, mine) => compareAll(right, mine, file.outputs, this.config.limits, file.allowed_error);
      const found = compare(this.gpu.reference, answers);
      const last = compare([this.gpu.reference[0]], [again]);
      this.accelerator.checks.gpu = found;
      this.accelerator.is_broken = !found.is_right || !last.is_right;
      if (!found.is_right) return `its answers are wrong: ${words(found)}`;
      if (!last.is_right) return `its first answer is right, a later one wrong: ${words(last)}`;
      if (!this.gpu.fully_accelerated) return "it cannot run every operator of the file";
      this.gpu.median_ms = await this.medianOf(this.gpu);
    } catch (error) {
      this.accelerator.is_broken = this.gpu !== null; // it crashed or hung; a file that it does not load, it refuses
      return error.message;
    }
    if (this.wanted === "auto" && this.gpu.median_ms >= this.cpu.median_ms) {
      return `it (${this.gpu.adapter || "unnamed"}) is slower: ${this.gpu.median_ms.toFixed(1)} ms, the CPU takes ${this.cpu.median_ms.toFixed(1)} ms`;
    }
    const { adapter, is_software, load_ms } = this.gpu;
    Object.assign(this.accelerator, { actual: "gpu", adapter: `WebGPU ${adapter}`.trim(), is_software, file: file.path, load_ms });
    this.checked_at = performance.now();
    return "";
  }

  async open(accelerator, build, file) {
    const worker = new TimedWorker(this.base);
    const { input } = this.config;
    try {
      return { worker, file, build, ...(await worker.ask("load", { base: this.base, build, accelerator, file, spec: input }, LOAD_MS)) };
    } catch (error) {
      worker.end("could not load");
      throw error;
    }
  }

  async expected(file) {
    const values = new Float32Array(await (await fetch(`${this.base}${file.answers}`)).arrayBuffer());
    let at = 0;
    return this.check.pixels.map(() =>
      file.outputs.map(({ size }) => {
        at += size;
        return values.subarray(at - size, at);
      }),
    );
  }

  /** The outputs for pictures' pixels: [picture][output]. */
  async answers(one, pixels, limit_ms = LOAD_MS) {
    const found = [];
    for (const picture of pixels) found.push((await one.worker.ask("run", { pixels: picture }, limit_ms)).outputs);
    return found;
  }

  async medianOf(one) {
    const { samples_ms } = await one.worker.ask("time", { pixels: this.check.pixels, runs: TIMED_RUNS, most_ms: 1500 }, LOAD_MS);
    return samples_ms.sort((a, b) => a - b)[Math.floor(samples_ms.length / 2)];
  }

  /** Load the file anew where it is served: two loads of one file are not equally fast. */
  async loadAgain() {
    const on = this.accelerator.actual === "gpu" ? "gpu" : "cpu";
    const { worker, file, build } = this[on];
    const fresh = await this.open(on === "gpu" ? "webgpu" : "wasm", build, file);
    worker.end("loaded again");
    this[on] = { ...this[on], ...fresh };
  }

  get serving() {
    return this.accelerator.actual === "gpu" ? this.gpu : this.cpu;
  }

  /**
   * Classify an ImageBitmap, which is used up. null: the GPU is stuck or wrong, and from now on the CPU serves, aloud.
   * Throws where the CPU failed; the next picture gets a new worker.
   */
  async frame(bitmap, keep = false) {
    const one = this.serving;
    const isGpu = one === this.gpu;
    try {
      const found = await one.worker.ask("frame", { bitmap, keep }, limitOf(one), [bitmap]);
      if (one === this.gpu && performance.now() - this.checked_at > CHECK_EVERY_MS) await this.checkAgain();
      return isGpu && one !== this.gpu ? null : found;
    } catch (error) {
      if (!isGpu) {
        await this.reopenCpu();
        throw error;
      }
      if (one === this.gpu) this.leaveGpu(error.message); // else another frame has done so
      return null;
    }
  }

  // Several pictures may have been on their way to a worker that hung: the first one's failure opens another.
  async reopenCpu() {
    const { worker, file, build } = this.cpu;
    if (!worker.ended) return;
    this.reopening ??= this.open("wasm", build, file).then((fresh) => void (this.cpu = { ...this.cpu, ...fresh })).finally(() => (this.reopening = null));
    await this.reopening;
  }

  async checkAgain() {
    this.checked_at = performance.now();
    const [answer] = await this.answers(this.gpu, [this.check.pixels[0]], limitOf(this.gpu));
    const { reference, file } = this.gpu;
    const found = compareAll([reference[0]], [answer], file.outputs, this.config.limits, file.allowed_error);
    if (!found.is_right) this.leaveGpu(`its answers became wrong: ${words(found)}`);
  }

  leaveGpu(reason) {
    this.gpu.worker.end(reason);
    this.gpu = null;
    Object.assign(this.accelerator, {
      actual: "cpu", adapter: `WebAssembly (${this.cpu.build})`, is_software: false, file: this.cpu.file.path, reason: `the GPU is no longer used: ${reason}`,
      is_broken: true,
    });
    this.changed();
  }

  /** Whether this browser gives a picture's pixels as they are: some add noise against tracking. */
  async pixelsAreTrue() {
    const { probe } = this.config.check;
    const picture = await createImageBitmap(await (await fetch(`${this.base}${probe.picture}`)).blob(), { colorSpaceConversion: "none" });
    const { fitted } = await this.cpu.worker.ask("fit", { bitmap: picture }, RUN_MS, [picture]);
    const expected = new Uint8Array(await (await fetch(`${this.base}${probe.pixels}`)).arrayBuffer());
    return fitted.length === expected.length && fitted.every((v, i) => v === expected[i]);
  }
}

/** How long an inference may take once it has run: a slow phone is not stuck. */
export function limitOf({ median_ms }) {
  return Math.max(RUN_MS, 10 * median_ms);
}

export function words(found) {
  return `top-1 agrees on ${(100 * found.top1).toFixed(0)} % of ${found.pictures} pictures, relative error ${(100 * found.relative_error).toFixed(1)} %`;
}
