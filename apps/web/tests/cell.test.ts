import { describe, expect, test, vi } from "vitest";
import type { Engine, Options } from "../src/cell/engine";
import { Cell, words } from "../src/cell/worker";
import { groupOf, resolution } from "../src/clock";
import type { Loaded, Turned, Warmed } from "../src/protocol";
import { percentile, threeFigures } from "../src/statistics";
import type { Tensors } from "../src/wire";

const options: Options = { threads: 2, engine: "onnxruntime-web", base: "http://localhost/" };
const feeds: Tensors = {
  "0/input_ids": { dtype: "<i4", shape: [1, 1], values: Int32Array.from([1]) },
  "1/input_ids": { dtype: "<i4", shape: [1, 1], values: Int32Array.from([2]) },
};

function engine(threads: number, runMs = 0): { start: () => Promise<Engine>; seen: number[] } {
  const seen: number[] = [];
  const run = async (feed: Tensors) => {
    seen.push(Number(feed.input_ids!.values[0]));
    const end = performance.now() + runMs;
    while (performance.now() < end);
    return { logits: feed.input_ids! };
  };
  return {
    seen,
    start: async () => ({ open: async () => ({ session: { run }, threads, provider: "WebAssembly" }) }),
  };
}

async function loaded(threads = 2, runMs = 0) {
  const made = engine(threads, runMs);
  const cell = new Cell(made.start);
  const told = await cell.answer({ do: "load", options, model: new ArrayBuffer(0) }, feeds);
  return { cell, seen: made.seen, told: told as { reply: Loaded } };
}

test("a model runs once when it is loaded, and says what it got", async () => {
  const { seen, told } = await loaded(1);
  expect(seen).toEqual([1]);
  expect(told.reply.threads).toBe(1);
  expect(told.reply.notes).toEqual(["got 1 of the 2 threads that were asked for"]);
  expect((await loaded(2)).told.reply.notes).toEqual([]);
});

test("a turn records as many values as it is asked for, going through the inputs", async () => {
  const { cell, seen } = await loaded(2, 0.2);
  const warm = await cell.answer({ do: "warm", runs: 3, min_s: 0, max_s: 5 }, {});
  const { runs, group } = (warm as { reply: Warmed }).reply;
  expect(runs).toBe(3);
  seen.length = 0;
  const told = await cell.answer({ do: "turn", runs: 4, min_s: 0, max_s: 5 }, {});
  expect((told as { reply: Turned }).reply.raw_ns).toHaveLength(4);
  expect(seen).toHaveLength(1 + 4 * group);
  expect(seen.slice(1).every((id, i, all) => i === 0 || id !== all[i - 1])).toBe(true);
});

test("answers are those of the inputs that come with the question", async () => {
  const { cell } = await loaded();
  const extra: Tensors = { "0/input_ids": { dtype: "<i4", shape: [1, 1], values: Int32Array.from([7]) } };
  const told = await cell.answer({ do: "answers" }, extra);
  expect(told).toEqual({ reply: {}, tensors: { "0/logits": extra["0/input_ids"] } });
});

test("without a model there is no answer", async () => {
  const cell = new Cell(engine(1).start);
  await expect(cell.answer({ do: "warm", runs: 1, min_s: 0, max_s: 1 }, {})).rejects.toThrow("no model");
});

describe("the clock", () => {
  test("its step is the smallest that it makes", () => {
    const times = [0, 0, 0.1, 0.1, 0.3, 0.4, 60];
    const read = vi.fn(() => times.shift() ?? 1000);
    expect(resolution(read)).toBeCloseTo(0.1);
  });

  test("runs are timed together until its step is small beside them", () => {
    expect(groupOf(5, 0.1)).toBe(1);
    expect(groupOf(0.5, 0.1)).toBe(4);
    expect(groupOf(0.5, 0.005)).toBe(1);
  });
});

test("percentiles lie between neighbours", () => {
  expect(percentile([4, 1, 3, 2], 0.5)).toBe(2.5);
  expect(percentile([7], 0.9)).toBe(7);
});

test("three figures", () => {
  expect([0, 0.12345, 1.8, 14.26, 1234].map(threeFigures)).toEqual(["0", "0.123", "1.80", "14.3", "1234"]);
});

test("an error is one line", () => {
  expect(words(new Error("a\n  b"))).toBe("a b");
  expect(words(12)).toBe("12");
});
