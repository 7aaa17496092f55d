import { readdirSync, readFileSync } from "node:fs";
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

// The license of packages that come without its text.
const WITHOUT_FILE: Record<string, string> = {
  "@litertjs/core": "../../LICENSE",
  "@litertjs/wasm-utils": "../../LICENSE",
  "onnxruntime-common": "licenses/onnxruntime.txt",
  "onnxruntime-web": "licenses/onnxruntime.txt",
};

// Only ONNX Runtime's WebGL, which is not built, and declarations of types.
const NOT_BUILT = /^(guid-typescript$|@types\/)/;

const packages = new URL("./node_modules/", import.meta.url);

function version(name: string): string {
  return JSON.parse(readFileSync(new URL(`${name}/package.json`, packages), "utf-8")).version;
}

interface Package {
  version: string;
  license: string;
  dependencies?: Record<string, string>;
}

/** What may be in the page, by name: the dependencies, and theirs. */
function shipped(names: string[], found = new Map<string, Package>()): Map<string, Package> {
  for (const name of names) {
    if (found.has(name) || NOT_BUILT.test(name)) continue;
    const held: Package = JSON.parse(readFileSync(new URL(`${name}/package.json`, packages), "utf-8"));
    found.set(name, held);
    shipped(Object.keys(held.dependencies ?? {}), found);
  }
  return found;
}

/** The licenses of what ships: of each package its file, or what we keep of those without one. */
function licenses(): string {
  const own: Package = JSON.parse(readFileSync(new URL("./package.json", import.meta.url), "utf-8"));
  const all = [...shipped(Object.keys(own.dependencies ?? {}))];
  const parts = all.map(([name, { version, license }]) => {
    const folder = new URL(`${name}/`, packages);
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const path = file ? new URL(file, folder) : new URL(WITHOUT_FILE[name]!, import.meta.url);
    return `${name} ${version}: ${license}\n\n${readFileSync(path, "utf-8").trim()}\n`;
  });
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}

/** Puts the engines' own files, their licenses, and `build.json`, which tells what was built, into the page. */
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
      this.emitFile({ type: "asset", fileName: "licenses.txt", source: licenses() });
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
