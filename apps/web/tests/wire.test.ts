import { expect, test } from "vitest";
import { pack, packed, unpack, unpacked, type Tensors } from "../src/wire";

const tensors: Tensors = {
  "0/ids": { dtype: "<i4", shape: [1, 3], values: Int32Array.from([1, -2, 3]) },
  "1/ids": { dtype: "|u1", shape: [1], values: Uint8Array.from([7]) },
  "1/logits": { dtype: "<f4", shape: [2, 1], values: Float32Array.from([0.5, -0.25]) },
  "1/wide": { dtype: "<i8", shape: [1], values: BigInt64Array.from([-5n]) },
};

test("a message comes back as it was", () => {
  const data = pack({ do: "turn", text: "ü😀" }, tensors);
  expect(unpack(data.buffer)).toEqual([{ do: "turn", text: "ü😀" }, tensors]);
});

test("the layout is that of edge.process.wire", () => {
  const data = pack({ a: 1 }, { x: { dtype: "<i4", shape: [1], values: Int32Array.from([258]) } });
  const text = '[{"a":1},[["x","<i4",[1]]]]';
  expect([...data]).toEqual([text.length, 0, 0, 0, ...new TextEncoder().encode(text), 2, 1, 0, 0]);
});

test("what is cut off, too long or of an unknown type is refused", () => {
  const data = pack({}, tensors);
  expect(() => unpack(data.buffer.slice(0, -1))).toThrow("cut off");
  expect(() => unpack(data.buffer.slice(0, 9))).toThrow("cut off");
  expect(() => unpack(new Uint8Array([...data, 0]).buffer)).toThrow("longer");
  const odd = pack({}, { x: { dtype: "|O", shape: [0], values: new Uint8Array(0) } });
  expect(() => unpack(odd.buffer)).toThrow("|O");
});

test("feeds are numbered", () => {
  expect(packed(unpacked(tensors))).toEqual(tensors);
  expect(unpacked(tensors).map((feed) => Object.keys(feed))).toEqual([["ids"], ["ids", "logits", "wide"]]);
});
