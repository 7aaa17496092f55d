import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Reader, shares, TokenizerWithRoom } from "../src/reader";

interface Case {
  text: string;
  pair: string | null;
  max: number;
  ids: number[];
  types: number[];
}

// Written by Python's `tokenizers`; tests/benchmark/test_browser.py compares them again.
const golden: Record<string, { tokenizer: object; cases: Case[] }> = JSON.parse(
  readFileSync(new URL("./tokenizers.json", import.meta.url), "utf-8"),
);

describe.each(Object.entries(golden))("%s", (_, { tokenizer, cases }) => {
  const inner = new TokenizerWithRoom(JSON.stringify(tokenizer));

  test.each(cases)("$text | $pair in $max tokens", ({ text, pair, max, ids, types }) => {
    expect(inner.encode(text, pair, max)).toEqual({ ids, types });
  });
});

// Any bundle's own golden vectors, as in EDGE_BUNDLE=../../build/demo/bundle npm test
const bundle = process.env.EDGE_BUNDLE;
test.runIf(bundle)("the golden texts of a bundle", () => {
  const read = (name: string) => readFileSync(`${bundle}/${name}`, "utf-8");
  const inner = new TokenizerWithRoom(read("tokenizer.json"));
  const { cases, max_length } = JSON.parse(read("golden.json"));
  for (const { text, text_pair, input_ids } of cases) {
    expect(inner.encode(text, text_pair ?? null, max_length).ids).toEqual(input_ids);
  }
});

test("a text is padded to the next length, or to its own", () => {
  const { tokenizer } = golden.uncased!;
  const reading = {
    texts: ["ok"],
    pairs: null,
    lengths: [8, 16],
    dynamic: false,
    pad_id: 9,
    names: ["attention_mask", "input_ids", "token_type_ids"],
  };
  const fixed = new Reader(JSON.stringify(tokenizer), reading).feed(0);
  expect(fixed.input_ids!.shape).toEqual([1, 8]);
  expect([...(fixed.input_ids!.values as Int32Array)].slice(4)).toEqual([9, 9, 9, 9]);
  expect([...(fixed.attention_mask!.values as Int32Array)]).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
  const lengths = [2, 16];
  const own = new Reader(JSON.stringify(tokenizer), { ...reading, lengths, dynamic: true }).feed(0);
  expect(own.token_type_ids!.shape).toEqual([1, 4]);
});

test("the longer of two texts gives way first", () => {
  expect(shares(3, 4, 10)).toEqual([3, 4]);
  expect(shares(30, 4, 10)).toEqual([6, 4]);
  expect(shares(4, 30, 10)).toEqual([4, 6]);
  expect(shares(30, 30, 11)).toEqual([5, 6]);
  expect(shares(30, 0, 11)).toEqual([11, 0]);
});
