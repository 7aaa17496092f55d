import { readFileSync } from "node:fs";
import { defineConfig, defaultClientConditions, type Plugin } from "vite";
import { PROTOCOL } from "./src/protocol.ts";

// What the engines load at run time, by the folder of the page they lie in. Of ONNX Runtime, each
// engine takes one pair; of LiteRT.js, the browser's abilities decide.
const ENGINES = {
  "engines/onnxruntime": [
    "onnxruntime-web/dist",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
  ],
  "engines/litert": [
    "@litertjs/core/wasm",
    "litert_wasm_internal.js",
    "litert_wasm_internal.wasm",
    "litert_wasm_compat_internal.js",
    "litert_wasm_compat_internal.wasm",
    "litert_wasm_threaded_internal.js",
    "litert_wasm_threaded_internal.wasm",
  ],
};
const VERSIONS = ["onnxruntime-web", "@litertjs/core", "@huggingface/tokenizers"];

const packages = new URL("./node_modules/", import.meta.url);

function version(name: string): string {
  return JSON.parse(readFileSync(new URL(`${name}/package.json`, packages), "utf-8")).version;
}

/** Puts the engines' own files, and `build.json`, which tells what was built, into the page. */
function engines(): Plugin {
  return {
    name: "engines",
    apply: "build",
    generateBundle() {
      for (const [folder, [source, ...files]] of Object.entries(ENGINES)) {
        for (const file of files) {
          const content = readFileSync(new URL(`${source}/${file}`, packages));
          this.emitFile({ type: "asset", fileName: `${folder}/${file}`, source: content });
        }
      }
      const versions = Object.fromEntries(VERSIONS.map((name) => [name, version(name)]));
      const build = JSON.stringify({ protocol: PROTOCOL, versions }, null, 2);
      this.emitFile({ type: "asset", fileName: "build.json", source: `${build}\n` });
    },
  };
}

export default defineConfig({
  // The page lies behind a token in the address.
  base: "./",
  plugins: [engines()],
  // ONNX Runtime as a small script that loads its wasm from where we serve it.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  // Classic workers: LiteRT.js loads its script with importScripts.
  worker: { format: "iife" },
  build: {
    target: ["chrome91", "firefox114", "safari15"],
    chunkSizeWarningLimit: 1000,
    // Into the Python package that serves it, so that a wheel takes it along.
    outDir: "../../benchmark/page",
    emptyOutDir: true,
  },
  test: { include: ["tests/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
