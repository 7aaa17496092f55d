import { beforeEach, expect, test, vi } from "vitest";
import type { Asked, Told } from "../src/cell/worker";
import type { LoadRequest } from "../src/protocol";

const asked: { engine: string; threads: number; ended: boolean }[] = [];
let answer: (threads: number) => Told | string = () => "never";

function fakeWorker(engine: string) {
  return class {
    onmessage: (event: { data: Told }) => void = () => undefined;
    onerror: (event: { message: string; preventDefault: () => void }) => void = () => undefined;
    private readonly log = { engine, threads: 0, ended: false };

    postMessage({ question }: Asked) {
      if (question.do === "load") {
        this.log.threads = question.options.threads;
        asked.push(this.log);
      }
      const told = answer(this.log.threads);
      queueMicrotask(() => {
        if (typeof told === "string") this.onerror({ message: told, preventDefault: () => undefined });
        else this.onmessage({ data: told });
      });
    }

    terminate() {
      this.log.ended = true;
    }
  };
}

vi.mock("../src/cell/onnx.worker?worker", () => ({ default: fakeWorker("onnx") }));
vi.mock("../src/cell/webgpu.worker?worker", () => ({ default: fakeWorker("webgpu") }));
vi.mock("../src/cell/litert.worker?worker", () => ({ default: fakeWorker("litert") }));
const { Cells } = await import("../src/cells");

const request: LoadRequest = {
  do: "load",
  cell: "model-1",
  label: "onnx-fp32",
  engine: "onnxruntime-web",
  path: "files/x",
  sha256: "x",
  bytes: 0,
  threads: 4,
  recorded: { turns: 0, raw_ns: [] },
};
const model = vi.fn(async () => new ArrayBuffer(0));
const loaded = (threads: number): Told => ({
  reply: { load_ns: 1, first_ns: 1, threads, provider: "WebAssembly", notes: [] },
  tensors: {},
});

beforeEach(() => {
  asked.length = 0;
  model.mockClear();
});

test("a model without memory for threads is loaded once more, on one, and says so", async () => {
  answer = (threads) => (threads > 1 ? { error: "WebAssembly.Memory(): could not allocate memory" } : loaded(1));
  const found = await new Cells("http://localhost/").load(request, {}, model);
  expect(asked.map(({ threads, ended }) => [threads, ended])).toEqual([[4, true], [1, false]]);
  expect(model).toHaveBeenCalledTimes(2);
  expect(found.notes[0]).toMatch(/^could not be loaded with 4 threads \(.*memory\), so it ran on one$/);
});

test("a worker that dies while it loads counts as one without memory", async () => {
  answer = (threads) => (threads > 1 ? "RangeError: Out of memory" : loaded(1));
  const found = await new Cells("http://localhost/").load(request, {}, model);
  expect(found.threads).toBe(1);
});

test("a model that the engine does not know is not tried again", async () => {
  answer = () => ({ error: "no kernel for NoSuchOperator" });
  await expect(new Cells("http://localhost/").load(request, {}, model)).rejects.toThrow("NoSuchOperator");
  expect(asked).toHaveLength(1);
  expect(asked[0]!.ended).toBe(true);
});

test("a model that was closed answers no more", async () => {
  answer = loaded;
  const cells = new Cells("http://localhost/");
  await cells.load(request, {}, model);
  expect(cells.artifact("model-1")).toBe("x");
  cells.close("model-1");
  await expect(cells.ask("model-1", { do: "memory" })).rejects.toThrow("not loaded");
});

test("an engine that the page does not have", async () => {
  const unknown = { ...request, engine: "tensorflow" };
  await expect(new Cells("http://localhost/").load(unknown, {}, model)).rejects.toThrow("tensorflow");
});
