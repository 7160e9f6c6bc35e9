// One model file on one accelerator, apart from the page: what hangs or crashes here can be ended. A classic worker,
// because LiteRT.js loads its WebAssembly with importScripts.
//
// Takes {id, type, ...}, answers {id, ...} or {id, error}.

"use strict";

let litert = null;
let pixels = null;
let model = null;
let file = null;
let spec = null;
let table = null;
let build = "";
let canvas = null;

const TYPES = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array };

const verbs = {
  /** Load the runtime and the model. {base, build, accelerator, file, spec} -> {load_ms, adapter, fully_accelerated} */
  async load(asked) {
    const began = performance.now();
    ({ file, spec, build } = asked);
    // LiteRT.js asks for its .wasm beside the page; this says where it is.
    self.Module = { locateFile: (name) => `${asked.base}litert/${name}` };
    pixels = await import(`${asked.base}pixels.js`);
    litert = await import(`${asked.base}litert/index.js`);
    const script = { default: "litert_wasm_internal.js", compat: "litert_wasm_compat_internal.js", jspi: "litert_wasm_jspi_internal.js" };
    await litert.loadLiteRt(`${asked.base}litert/${script[build]}`);
    const answer = await fetch(`${asked.base}${file.path}`);
    if (!answer.ok) throw new Error(`${file.path}: HTTP ${answer.status}`);
    model = await litert.loadAndCompile(new Uint8Array(await answer.arrayBuffer()), { accelerator: asked.accelerator });
    table = new TYPES[file.input.dtype](new Uint8Array(file.table).buffer);
    const device = asked.accelerator === "webgpu" ? litert.getWebGpuDevice() : null;
    return {
      load_ms: performance.now() - began,
      adapter: device ? adapterName(device.adapterInfo ?? {}) : "",
      is_software: device ? /swiftshader|llvmpipe|software|basic render/i.test(adapterName(device.adapterInfo ?? {})) : false,
      fully_accelerated: model.isFullyAccelerated,
    };
  },

  /** Run on fitted pixels. {pixels} -> {outputs, ms}: ms has every output read. */
  async run({ pixels: fitted }) {
    return infer(fitted);
  },

  /** Run on a camera's picture. {bitmap} -> {outputs, stages_ms, fitted} */
  async frame({ bitmap, keep }) {
    const began = performance.now();
    const fitted = fit(bitmap);
    bitmap.close();
    const ready = performance.now();
    const found = await infer(fitted);
    return { ...found, stages_ms: { preprocess: ready - began, inference: found.ms }, fitted: keep ? fitted : null };
  },

  /** Fit a picture only. {bitmap} -> {fitted} */
  async fit({ bitmap }) {
    const fitted = fit(bitmap);
    bitmap.close();
    return { fitted };
  },

  /** Time many runs. {pixels: [..], runs, most_ms} -> {samples_ms} */
  async time({ pixels: all, runs, most_ms }) {
    const samples = [];
    const began = performance.now();
    for (let i = 0; i < runs && performance.now() - began < most_ms; i++) {
      samples.push((await infer(all[i % all.length])).ms);
    }
    return { samples_ms: samples };
  },
};

function adapterName(info) {
  return [info.vendor, info.architecture, info.description || info.device].filter(Boolean).join(" ");
}

function fit(bitmap) {
  if (!canvas || canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
    canvas.context.fillStyle = "white";
  }
  canvas.context.fillRect(0, 0, bitmap.width, bitmap.height); // behind what is transparent, as edge_ran/picture.py has it
  canvas.context.drawImage(bitmap, 0, 0); // at its own size: a browser's scaling is not OpenCV's
  const { data } = canvas.context.getImageData(0, 0, bitmap.width, bitmap.height);
  return pixels.fitPixels(data, bitmap.width, bitmap.height, spec);
}

async function infer(fitted) {
  const x = new TYPES[file.input.dtype](fitted.length);
  for (let i = 0; i < x.length; i++) x[i] = table[3 * fitted[i] + (i % 3)];
  const shape = [1, spec.height, spec.width, 3];
  const began = performance.now();
  const input = new litert.Tensor(x, shape);
  const results = await model.run(input);
  const outputs = [];
  for (const result of results) outputs.push((await result.data()).slice()); // a GPU's work is done when it is read
  const ms = performance.now() - began;
  input.delete();
  for (const result of results) result.delete();
  return { outputs: outputs.map((values, i) => real(values, file.outputs[i])), ms };
}

function real(values, tensor) {
  if (tensor.scale <= 0) return Float32Array.from(values);
  return Float32Array.from(values, (v) => (v - tensor.zero_point) * tensor.scale);
}

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, ...(await verbs[data.type](data)) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String((error && error.message) || error).slice(0, 300) });
  }
};
