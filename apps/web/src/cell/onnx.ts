/** ONNX Runtime Web: WebAssembly, or WebGPU where the browser has it. */

import type * as Ort from "onnxruntime-web";
import type { Tensor as OrtTensor } from "onnxruntime-web";
import type { Tensors, Values } from "../wire";
import type { Engine, Opened, Options, Session } from "./engine";

type Library = typeof Ort;

// A graph of one Identity: opening it loads and starts the engine, which is no model's time.
const IDENTITY =
  "CAc6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";
const TYPES: Record<string, Ort.Tensor.Type> = { "<i4": "int32", "<i8": "int64", "<f4": "float32" };
const CODES: Partial<Record<Ort.Tensor.Type, string>> = {
  float32: "<f4",
  float64: "<f8",
  float16: "<f2",
  int32: "<i4",
  int64: "<i8",
  int8: "|i1",
  uint8: "|u1",
  bool: "|b1",
};

/** Load the engine's own code for so many threads. `library` is one of its two builds. */
export async function start(library: Library, options: Options): Promise<Engine> {
  const { wasm } = library.env;
  wasm.wasmPaths = new URL("engines/onnxruntime/", options.base).href;
  wasm.numThreads = options.threads;
  library.env.logLevel = "error";
  const provider = options.engine === "onnxruntime-webgpu" ? "webgpu" : "wasm";
  const opened: Ort.InferenceSession.SessionOptions = {
    executionProviders: [provider],
    // The runtime's own default at every place; stated because the row's reader may ask.
    graphOptimizationLevel: "all",
  };
  const identity = Uint8Array.from(atob(IDENTITY), (letter) => letter.charCodeAt(0));
  await (await library.InferenceSession.create(identity, opened)).release();
  return {
    async open(model: Uint8Array<ArrayBuffer>): Promise<Opened> {
      const inner = await library.InferenceSession.create(model, opened);
      const session = new OnnxSession(library, inner);
      const name = provider === "webgpu" ? "WebGPU" : "WebAssembly";
      return { session, threads: wasm.numThreads ?? 1, provider: name };
    },
  };
}

class OnnxSession implements Session {
  constructor(
    private readonly library: Library,
    private readonly inner: Ort.InferenceSession,
  ) {}

  async run(feed: Tensors): Promise<Tensors> {
    const inputs: Record<string, OrtTensor> = {};
    for (const [name, { dtype, shape, values }] of Object.entries(feed)) {
      const type = TYPES[dtype];
      if (type === undefined) throw new Error(`inputs of ${dtype} cannot be fed here`);
      inputs[name] = new this.library.Tensor(type, values as Int32Array<ArrayBuffer>, shape) as OrtTensor;
    }
    const outputs = await this.inner.run(inputs);
    const found: Tensors = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      const dtype = CODES[tensor.type];
      if (dtype === undefined) throw new Error(`outputs of ${tensor.type} cannot be sent`);
      found[name] = { dtype, shape: [...tensor.dims], values: tensor.data as Values };
    }
    return found;
  }
}
