import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { digest, sha256 } from "../src/sha256";

// Around the lengths at which the padding takes another block, and a few blocks more.
const lengths = [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 100_003];

test.each(lengths)("%d bytes", async (length) => {
  const data = Uint8Array.from({ length }, (_, i) => (i * 31 + 7) & 255);
  const expected = createHash("sha256").update(data).digest("hex");
  expect(digest(data)).toBe(expected);
  expect(digest(new Uint8Array([9, ...data]).subarray(1))).toBe(expected);
  expect(await sha256(data.buffer)).toBe(expected);
});
