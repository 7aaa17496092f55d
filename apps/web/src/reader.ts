/** From a text to a model's inputs, where a `tokenizer.json` is all there is: `benchmark.worker.text_encoder`. */

import { Tokenizer } from "@huggingface/tokenizers";
import type { Tensors } from "./wire";

export interface Reading {
  texts: string[];
  pairs: string[] | null;
  /** Tokens that texts are padded to, one of them or, if `dynamic`, anything up to the last. */
  lengths: number[];
  dynamic: boolean;
  pad_id: number;
  names: string[];
}

export interface Encoded {
  ids: number[];
  types: number[];
}

/** Texts and what becomes of them. */
export class Reader {
  private readonly inner: TokenizerWithRoom;

  constructor(
    tokenizer: string,
    private readonly reading: Reading,
  ) {
    this.inner = new TokenizerWithRoom(tokenizer);
  }

  get count(): number {
    return this.reading.texts.length;
  }

  /** The inputs of one text, int32 of shape (1, length). */
  feed(number: number): Tensors {
    const { texts, pairs, lengths, names, pad_id } = this.reading;
    const longest = lengths[lengths.length - 1]!;
    const found = this.inner.encode(texts[number]!, pairs?.[number] ?? null, longest);
    const length = this.length(found.ids.length);
    const columns: Record<string, [number[], number]> = {
      input_ids: [found.ids, pad_id],
      attention_mask: [found.ids.map(() => 1), 0],
      token_type_ids: [found.types, 0],
    };
    const feed: Tensors = {};
    for (const name of names) {
      const [own, padding] = columns[name]!;
      const values = new Int32Array(length).fill(padding);
      values.set(own);
      feed[name] = { dtype: "<i4", shape: [1, length], values };
    }
    return feed;
  }

  private length(tokens: number): number {
    const { lengths, dynamic } = this.reading;
    if (dynamic) return Math.max(lengths[0]!, tokens);
    return lengths.find((length) => length >= tokens) ?? lengths[lengths.length - 1]!;
  }
}

/** A tokenizer that cuts texts to a length, the longer part first, as `tokenizers` does. */
export class TokenizerWithRoom {
  private readonly inner: Tokenizer;
  private readonly added = new Map<string, number>();
  private readonly unknown: number;
  private readonly lowers: boolean;

  constructor(json: string) {
    const values = JSON.parse(json) as { normalizer?: Normalizer | null };
    this.inner = new Tokenizer(values, {});
    this.lowers = lowers(values.normalizer);
    for (const [id, token] of this.inner.get_added_tokens_decoder()) {
      this.added.set(token.content, id);
    }
    this.unknown = (this.inner.model as { unk_token_id?: number } | null)?.unk_token_id ?? 0;
  }

  /** ids and token types, special tokens included, at most `max` of them. */
  encode(text: string, pair: string | null, max: number): Encoded {
    const first = this.tokens(text);
    const second = pair === null ? null : this.tokens(pair);
    const special = this.whole([], second === null ? null : []).tokens.length;
    const [a, b] = shares(first.length, second?.length ?? 0, max - special);
    const cut = second === null ? null : second.slice(0, b);
    const { tokens, types } = this.whole(first.slice(0, a), cut);
    const ids = tokens.map((token) => this.id(token));
    return { ids, types: types ?? ids.map(() => 0) };
  }

  /** JavaScript makes a capital sigma another letter at the end of a word; `tokenizers` does not. */
  private tokens(text: string): string[] {
    return this.inner.tokenize(this.lowers ? text.replaceAll("Σ", "σ") : text);
  }

  private whole(first: string[], second: string[] | null): { tokens: string[]; types?: number[] } {
    const processor = this.inner.post_processor;
    if (processor === null) return { tokens: [...first, ...(second ?? [])] };
    const found = processor.post_process(first, second, true);
    return { tokens: found.tokens, types: found.token_type_ids };
  }

  private id(token: string): number {
    return this.added.get(token) ?? this.inner.token_to_id(token) ?? this.unknown;
  }
}

interface Normalizer {
  type: string;
  lowercase?: boolean;
  normalizers?: Normalizer[];
}

/** Whether a normalizer, or a part of it, turns capitals into small letters. */
function lowers(normalizer: Normalizer | null | undefined): boolean {
  if (!normalizer) return false;
  const { type, lowercase, normalizers } = normalizer;
  return type === "Lowercase" || lowercase === true || (normalizers ?? []).some(lowers);
}

/** How many tokens of a text and of its pair stay: the longer gives way first. */
export function shares(first: number, second: number, room: number): [number, number] {
  if (first + second <= room) return [first, second];
  if (second === 0) return [Math.max(0, room), 0];
  const short = Math.min(first, second);
  let [small, large] = [short, short > room ? short : Math.max(short, room - short)];
  if (small + large > room) {
    small = Math.floor(room / 2);
    large = small + (room % 2);
  }
  return first > second ? [large, small] : [small, large];
}
