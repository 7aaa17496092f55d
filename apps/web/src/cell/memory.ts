/** WebAssembly memory of this worker, which only grows: its size at the end is its peak. */

const seen: WebAssembly.Memory[] = [];
// What an instance exports is one of these, not of the class that takes its place below.
const Plain = WebAssembly.Memory;

/** Notice every memory that is made from now on, whoever makes it. */
export function watch(): void {
  WebAssembly.Memory = class extends Plain {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      seen.push(this);
    }
  };
  const { instantiate, instantiateStreaming } = WebAssembly;
  const wrap = <A extends unknown[], R>(plain: (...values: A) => Promise<R>) =>
    async (...values: A): Promise<R> => {
      const found = await plain(...values);
      note(found as WebAssembly.Instance | WebAssembly.WebAssemblyInstantiatedSource);
      return found;
    };
  WebAssembly.instantiate = wrap(instantiate.bind(WebAssembly)) as typeof instantiate;
  if (instantiateStreaming !== undefined) {
    const bound = instantiateStreaming.bind(WebAssembly);
    WebAssembly.instantiateStreaming = wrap(bound);
  }
}

/** Bytes of all memories; null where none was seen. */
export function bytes(): number | null {
  if (seen.length === 0) return null;
  return seen.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

function note(found: WebAssembly.Instance | WebAssembly.WebAssemblyInstantiatedSource): void {
  const instance = "instance" in found ? found.instance : found;
  for (const value of Object.values(instance.exports)) {
    if (value instanceof Plain && !seen.includes(value)) seen.push(value);
  }
}
