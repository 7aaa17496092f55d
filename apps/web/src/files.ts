/** Files of a bundle, taken from the program and checked. */

import { sha256 } from "./sha256";

/** Throws an Error for a file that is not the one its checksum says. */
export async function download(
  address: URL,
  expected: string,
  progress: (part: number) => void = () => undefined,
): Promise<ArrayBuffer> {
  const answer = await fetch(address);
  if (!answer.ok || answer.body === null) {
    throw new Error(`the file could not be downloaded (status ${answer.status})`);
  }
  const size = Number(answer.headers.get("Content-Length"));
  const data = new Uint8Array(size);
  const reader = answer.body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > size) throw new Error("the file is longer than was said");
    data.set(value, at);
    at += value.length;
    progress(at / size);
  }
  if (at !== size) throw new Error("the file arrived incomplete");
  if ((await sha256(data.buffer)) !== expected) {
    throw new Error("the file that arrived is not the one in the manifest (its checksum differs)");
  }
  return data.buffer;
}
