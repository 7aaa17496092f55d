/**
 * Messages as `edge.process.wire` lays them out: the length of a JSON text (4 bytes, little-endian), the
 * text `[message, [[name, dtype, shape], ...]]`, then the bytes of each array in that order.
 */

export type Values =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>;

/** dtype: numpy's code. A 16-bit float is carried as its bits. */
export interface Tensor {
  dtype: string;
  shape: number[];
  values: Values;
}

export type Tensors = Record<string, Tensor>;

interface ArrayType {
  new (buffer: ArrayBuffer): Values;
  BYTES_PER_ELEMENT: number;
}

const TYPES: Record<string, ArrayType> = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "<f2": Uint16Array,
  "|i1": Int8Array,
  "|u1": Uint8Array,
  "|b1": Uint8Array,
  "<i2": Int16Array,
  "<u2": Uint16Array,
  "<i4": Int32Array,
  "<u4": Uint32Array,
  "<i8": BigInt64Array,
  "<u8": BigUint64Array,
};
const PREFIX_BYTES = 4;

export function pack(message: object, tensors: Tensors = {}): Uint8Array<ArrayBuffer> {
  const named = Object.entries(tensors);
  const layout = named.map(([name, tensor]) => [name, tensor.dtype, tensor.shape]);
  const text = new TextEncoder().encode(JSON.stringify([message, layout]));
  const sizes = named.map(([, tensor]) => tensor.values.byteLength);
  const total = sizes.reduce((sum, size) => sum + size, PREFIX_BYTES + text.length);
  const data = new Uint8Array(total);
  new DataView(data.buffer).setUint32(0, text.length, true);
  data.set(text, PREFIX_BYTES);
  let at = PREFIX_BYTES + text.length;
  for (const [, { values }] of named) {
    data.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return data;
}

/** Throws an Error for what is no whole message. */
export function unpack(data: ArrayBuffer): [message: Record<string, unknown>, tensors: Tensors] {
  if (data.byteLength < PREFIX_BYTES) throw new Error("the message is cut off");
  const length = new DataView(data).getUint32(0, true);
  let at = PREFIX_BYTES + length;
  if (data.byteLength < at) throw new Error("the message is cut off");
  const text = new TextDecoder().decode(new Uint8Array(data, PREFIX_BYTES, length));
  const [message, layout] = JSON.parse(text) as [Record<string, unknown>, [string, string, number[]][]];
  const tensors: Tensors = {};
  for (const [name, dtype, shape] of layout) {
    const type = TYPES[dtype];
    if (type === undefined) throw new Error(`arrays of ${dtype} cannot be read here`);
    const bytes = shape.reduce((product, size) => product * size, type.BYTES_PER_ELEMENT);
    if (data.byteLength < at + bytes) throw new Error("the message is cut off");
    // A copy: arrays must start at multiples of their element size.
    tensors[name] = { dtype, shape, values: new type(data.slice(at, at + bytes)) };
    at += bytes;
  }
  if (at !== data.byteLength) throw new Error("the message is longer than it says");
  return [message, tensors];
}

/** Inputs "NUMBER/NAME" as one record a number. */
export function unpacked(tensors: Tensors): Tensors[] {
  const found: Tensors[] = [];
  for (const [key, tensor] of Object.entries(tensors)) {
    const slash = key.indexOf("/");
    const number = Number(key.slice(0, slash));
    while (found.length <= number) found.push({});
    found[number]![key.slice(slash + 1)] = tensor;
  }
  return found;
}

/** The opposite of `unpacked`. */
export function packed(records: Tensors[]): Tensors {
  const found: Tensors = {};
  records.forEach((record, number) => {
    for (const [name, tensor] of Object.entries(record)) found[`${number}/${name}`] = tensor;
  });
  return found;
}
