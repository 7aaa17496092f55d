/** The models that the program asked for, each in a worker of its own. */

import type { Answer, Asked, Question, Told } from "./cell/worker";
import LitertWorker from "./cell/litert.worker?worker";
import OnnxWorker from "./cell/onnx.worker?worker";
import WebGpuWorker from "./cell/webgpu.worker?worker";
import type { Loaded, LoadRequest } from "./protocol";
import type { Tensors } from "./wire";

const WORKERS: Record<string, new () => Worker> = {
  "onnxruntime-web": OnnxWorker,
  "onnxruntime-webgpu": WebGpuWorker,
  "litert-web": LitertWorker,
};
// Threads that cannot be started sometimes never say so.
const LOAD_LIMIT_MS = 120_000;
const MEMORY = /memory|allocat|RangeError|out of bounds|Aborted|unreachable/i;

/** A worker and the one question it is busy with. */
class Cell {
  private readonly worker: Worker;
  private settle: { resolve: (told: Told) => void; reject: (error: Error) => void } | null = null;

  constructor(engine: string) {
    const type = WORKERS[engine];
    if (type === undefined) throw new Error(`this page has no engine called ${engine}`);
    this.worker = new type();
    this.worker.onmessage = ({ data }: MessageEvent<Told>) => this.settle?.resolve(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.settle?.reject(new Error(event.message || "the worker could not be started"));
    };
  }

  async ask(question: Question, tensors: Tensors = {}, limitMs = Infinity): Promise<[Answer, Tensors]> {
    const told = await new Promise<Told>((resolve, reject) => {
      this.settle = { resolve, reject };
      if (Number.isFinite(limitMs)) {
        setTimeout(reject, limitMs, new Error(`no answer within ${limitMs / 1000} s`));
      }
      const asked: Asked = { question, tensors };
      this.worker.postMessage(asked, question.do === "load" ? [question.model] : []);
    });
    if ("error" in told) throw new Error(told.error);
    return [told.reply, told.tensors];
  }

  end(): void {
    this.worker.terminate();
  }
}

/** All models that are loaded, by the program's name for them. */
export class Cells {
  private readonly open = new Map<string, Cell>();
  private readonly artifacts = new Map<string, string>();

  constructor(private readonly base: string) {}

  /**
   * Load a model in a fresh worker. Where memory does not suffice for threads, with one thread.
   * model: gives its bytes, which the worker takes for itself.
   */
  async load(request: LoadRequest, feeds: Tensors, model: () => Promise<ArrayBuffer>): Promise<Loaded> {
    this.close(request.cell);
    try {
      return await this.start(request, feeds, request.threads, await model());
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const memory = MEMORY.test(text) || text.startsWith("no answer");
      this.close(request.cell);
      if (request.threads === 1 || !memory) throw error;
      const loaded = await this.start(request, feeds, 1, await model());
      const note = `could not be loaded with ${request.threads} threads (${text}), so it ran on one`;
      return { ...loaded, notes: [...loaded.notes, note] };
    }
  }

  /** Throws an Error when the model fails, or is not there. */
  async ask(cell: string, question: Question, tensors: Tensors = {}): Promise<[Answer, Tensors]> {
    const found = this.open.get(cell);
    if (found === undefined) throw new Error("the model is not loaded in this page");
    return found.ask(question, tensors);
  }

  /** Checksum of the file that a model was loaded from. */
  artifact(cell: string): string {
    return this.artifacts.get(cell) ?? "";
  }

  close(cell: string): void {
    this.open.get(cell)?.end();
    this.open.delete(cell);
  }

  closeAll(): void {
    for (const cell of [...this.open.keys()]) this.close(cell);
  }

  private async start(
    request: LoadRequest,
    feeds: Tensors,
    threads: number,
    model: ArrayBuffer,
  ): Promise<Loaded> {
    const cell = new Cell(request.engine);
    this.open.set(request.cell, cell);
    this.artifacts.set(request.cell, request.sha256);
    const options = { threads, engine: request.engine, base: this.base };
    const limit = threads > 1 ? LOAD_LIMIT_MS : Infinity;
    const [loaded] = await cell.ask({ do: "load", options, model }, feeds, limit);
    return loaded as Loaded;
  }
}
