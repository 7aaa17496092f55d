/**
 * The process of one model: loads it, runs it when asked, and reads the clock beside the run.
 * The counterpart of `benchmark.worker.worker`, whose messages it answers.
 */

import { groupOf, now, resolution } from "../clock";
import type { Loaded, Remembered, Staged, Turned, Warmed } from "../protocol";
import { Reader, type Reading } from "../reader";
import { percentile } from "../statistics";
import { packed, unpacked, type Tensors } from "../wire";
import type { Engine, Options, Session } from "./engine";
import * as memory from "./memory";

/** What the page asks of a worker. */
export type Question =
  | { do: "load"; options: Options; model: ArrayBuffer }
  | { do: "warm"; runs: number; min_s: number; max_s: number }
  | { do: "turn"; runs: number; min_s: number; max_s: number }
  | { do: "memory" }
  | { do: "answers" }
  | { do: "stages"; tokenizer: string; reading: Reading };

export type Answer = Loaded | Warmed | Turned | Remembered | Staged | Record<string, never>;

export interface Asked {
  question: Question;
  tensors: Tensors;
}

export type Told = { reply: Answer; tensors: Tensors } | { error: string };

/** Answer the page until it ends this worker. */
export function serve(start: (options: Options) => Promise<Engine>): void {
  memory.watch();
  const cell = new Cell(start);
  const port = self as unknown as {
    onmessage: (event: MessageEvent<Asked>) => void;
    postMessage(message: Told): void;
  };
  port.onmessage = ({ data: { question, tensors } }) => {
    cell.answer(question, tensors).then(
      (told) => port.postMessage(told),
      (error: unknown) => port.postMessage({ error: words(error) }),
    );
  };
}

/** One loaded model and the questions it answers. */
export class Cell {
  private session: Session | null = null;
  private feeds: Tensors[] = [];
  private next = 0;
  private group = 1;

  constructor(private readonly start: (options: Options) => Promise<Engine>) {}

  async answer(question: Question, tensors: Tensors): Promise<Told> {
    switch (question.do) {
      case "load":
        return plain(await this.load(question.options, question.model, tensors));
      case "warm":
        return plain(await this.warm(question.runs, question.min_s, question.max_s));
      case "turn":
        return plain(await this.turn(question.runs, question.min_s, question.max_s));
      case "memory":
        return plain({ wasm_bytes: memory.bytes() });
      case "answers":
        return { reply: {}, tensors: await this.answers(tensors) };
      case "stages":
        return plain(await this.stages(question.tokenizer, question.reading));
    }
  }

  /** Open the model, and run it for the first time. */
  private async load(options: Options, model: ArrayBuffer, tensors: Tensors): Promise<Loaded> {
    const engine = await this.start(options);
    this.feeds = unpacked(tensors);
    const start = now();
    const opened = await engine.open(new Uint8Array(model));
    const loaded = now();
    this.session = opened.session;
    await this.run(this.feeds[0]!);
    const done = now();
    const notes =
      opened.threads < options.threads
        ? [`got ${opened.threads} of the ${options.threads} threads that were asked for`]
        : [];
    return {
      load_ns: nanoseconds(loaded - start),
      first_ns: nanoseconds(done - loaded),
      threads: opened.threads,
      provider: opened.provider,
      notes,
    };
  }

  /** Unrecorded runs until there were enough of them and for long enough. */
  private async warm(runs: number, minS: number, maxS: number): Promise<Warmed> {
    const start = now();
    const each: number[] = [];
    let spent = 0;
    while ((each.length < runs || spent < minS * 1e3) && spent < maxS * 1e3) {
      const before = spent;
      await this.run(this.feed());
      spent = now() - start;
      each.push(spent - before);
    }
    // The middle one: the first are slow. It is 0 where the clock is too coarse for any.
    const typical = percentile(each, 0.5) || spent / each.length;
    this.group = groupOf(typical, resolution());
    return { runs: each.length, duration_s: spent / 1e3, group: this.group };
  }

  /** One unrecorded run, then recorded ones; a value is the mean of a group of them. */
  private async turn(runs: number, minS: number, maxS: number): Promise<Turned> {
    const group = this.group;
    const raw: number[] = [];
    const begin = now();
    // The next input already: a turn shall not skip any, and its shape may be new.
    await this.run(this.feeds[(this.next + 1) % this.feeds.length]!);
    const least = now() + minS * 1e3;
    const limit = begin + maxS * 1e3;
    for (;;) {
      const start = now();
      for (let i = 0; i < group; i++) await this.run(this.feed());
      const end = now();
      raw.push((end - start) / group);
      if (end >= limit || (raw.length >= runs && end >= least)) {
        return { raw_ns: raw.map(nanoseconds), duration_s: (end - begin) / 1e3 };
      }
    }
  }

  /** The outputs of inputs that are not among those timed. */
  private async answers(tensors: Tensors): Promise<Tensors> {
    const found: Tensors[] = [];
    for (const feed of unpacked(tensors)) found.push(await this.run(feed));
    return packed(found);
  }

  /** Every text from end to end, once unrecorded and once recorded; nanoseconds of each. */
  private async stages(tokenizer: string, reading: Reading): Promise<Staged> {
    const reader = new Reader(tokenizer, reading);
    const staged: Staged = { tokenize_ns: [], infer_ns: [], e2e_ns: [] };
    for (let number = 0; number < reader.count; number++) {
      await this.run(reader.feed(number));
      const start = now();
      const feed = reader.feed(number);
      const tokenized = now();
      await this.run(feed);
      const end = now();
      staged.tokenize_ns.push(nanoseconds(tokenized - start));
      staged.infer_ns.push(nanoseconds(end - tokenized));
      staged.e2e_ns.push(nanoseconds(end - start));
    }
    return staged;
  }

  private run(feed: Tensors): Promise<Tensors> {
    if (this.session === null) throw new Error("no model is loaded");
    return this.session.run(feed);
  }

  /** The next input, one after another. */
  private feed(): Tensors {
    this.next = (this.next + 1) % this.feeds.length;
    return this.feeds[this.next]!;
  }
}

/** What went wrong, in one line. */
export function words(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.split(/\s+/).join(" ").slice(0, 300);
}

function plain(reply: Answer): Told {
  return { reply, tensors: {} };
}

function nanoseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1e6);
}
