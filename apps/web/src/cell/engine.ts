/** What every engine offers to the worker of a model. */

import type { Tensors } from "../wire";

export interface Session {
  /** Outputs by name for inputs by name. */
  run(feed: Tensors): Promise<Tensors>;
}

export interface Opened {
  session: Session;
  /** Threads that it really uses. */
  threads: number;
  provider: string;
}

export interface Options {
  threads: number;
  /** The engine's name, which says the provider. */
  engine: string;
  /** Address of the page's folder, which the engines' own files lie in. */
  base: string;
}

/** An engine that is ready: its code is loaded, no model yet. */
export interface Engine {
  open(model: Uint8Array<ArrayBuffer>): Promise<Opened>;
}
