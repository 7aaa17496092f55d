/** LiteRT.js: the current runtime of .tflite files, CPU with XNNPACK in WebAssembly. */

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";
import type { SignatureRunner } from "@litertjs/core";
import type { Tensors } from "../wire";
import type { Engine, Opened, Options, Session } from "./engine";

type LiteRtValues = Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

const CODES = new Map<Function, string>([
  [Float32Array, "<f4"],
  [Int32Array, "<i4"],
  [Uint8Array, "|u1"],
]);

/** Load the engine's own code for so many threads; these need an isolated page and relaxed SIMD. */
export async function start(options: Options): Promise<Engine> {
  const folder = new URL("engines/litert/", options.base).href;
  const possible = self.crossOriginIsolated && (await supportsFeature("relaxedSimd"));
  const several = options.threads > 1 && possible;
  // Its threads are workers of the same script, which it would look for in place of this one.
  (self as unknown as { Module?: object }).Module = {
    mainScriptUrlOrBlob: `${folder}litert_wasm_threaded_internal.js`,
    locateFile: (name: string) => folder + name,
  };
  await loadLiteRt(folder, { threads: several });
  const threads = several ? options.threads : 1;
  return {
    async open(model: Uint8Array<ArrayBuffer>): Promise<Opened> {
      const compiled = await loadAndCompile(model, {
        accelerator: "wasm",
        cpuOptions: { numThreads: threads },
      });
      const runners = Object.values(compiled.signatures);
      const session = new LiteRtSession(runners);
      return { session, threads, provider: "WebAssembly" };
    },
  };
}

/** One runner a signature; a signature is a fixed length, all share the weights. */
class LiteRtSession implements Session {
  private readonly runners = new Map<number, SignatureRunner>();

  constructor(runners: SignatureRunner[]) {
    for (const runner of runners) {
      const ids = runner.getInputDetails().find(({ name }) => name === "input_ids");
      const length = ids?.shape[1];
      if (length === undefined) throw new Error("the model has no input called input_ids");
      this.runners.set(length, runner);
    }
  }

  async run(feed: Tensors): Promise<Tensors> {
    const length = Object.values(feed)[0]!.shape[1]!;
    const runner = this.runners.get(length);
    if (runner === undefined) {
      const known = [...this.runners.keys()].sort((a, b) => a - b).join(", ");
      throw new Error(`the model accepts lengths ${known}, not ${length}`);
    }
    const inputs: Record<string, Tensor> = {};
    for (const [name, { shape, values }] of Object.entries(feed)) {
      inputs[name] = new Tensor(values as LiteRtValues, shape);
    }
    try {
      return read(await runner.run(inputs), runner);
    } finally {
      for (const tensor of Object.values(inputs)) tensor.delete();
    }
  }
}

function read(outputs: Record<string, Tensor>, runner: SignatureRunner): Tensors {
  const found: Tensors = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const values = tensor.toTypedArray().slice() as LiteRtValues;
    const details = runner.getOutputDetails().find((output) => output.name === name);
    const dtype = CODES.get(values.constructor);
    if (details === undefined || dtype === undefined) throw new Error(`output ${name} is unknown`);
    found[name] = { dtype, shape: [...details.shape], values };
    tensor.delete();
  }
  return found;
}
