/** Counts up when what the page and the program say to each other changes. */
export const PROTOCOL = 1;

/** One model that the program asks for: `benchmark.devices.browser.device` writes it. */
export interface LoadRequest {
  do: "load";
  cell: string;
  label: string;
  engine: string;
  /** Relative to the page. */
  path: string;
  sha256: string;
  bytes: number;
  threads: number;
  /** Rounds that were recorded before the page was opened again, and their values. */
  recorded: { turns: number; raw_ns: number[] };
}

export interface WarmRequest {
  do: "warm";
  cell: string;
  runs: number;
  min_s: number;
  max_s: number;
  rounds: number;
}

export interface TurnRequest {
  do: "turn";
  cell: string;
  runs: number;
  min_s: number;
  max_s: number;
}

export interface MemoryRequest {
  do: "memory";
  cell: string;
}

export interface AnswersRequest {
  do: "answers";
  cell: string;
}

export interface StagesRequest {
  do: "stages";
  cell: string;
  tokenizer: string;
  tokenizer_sha256: string;
  texts: string[];
  pairs: string[] | null;
  lengths: number[];
  dynamic: boolean;
  pad_id: number;
  names: string[];
}

export interface FinishRequest {
  do: "finish";
  /** Whether the program has everything, and was not interrupted. */
  complete: boolean;
}

export type Request =
  | LoadRequest
  | WarmRequest
  | TurnRequest
  | MemoryRequest
  | AnswersRequest
  | StagesRequest
  | FinishRequest;

/** Every request is numbered; its reply says the number. ended: models that are done with. */
export type Numbered = Request & { number: number; ended?: string[] };

export interface Loaded {
  load_ns: number;
  first_ns: number;
  threads: number;
  provider: string;
  /** What a reader of the figures should know, in words. */
  notes: string[];
}

/** group: runs that are timed together from now on. */
export interface Warmed {
  runs: number;
  duration_s: number;
  group: number;
}

/** raw_ns: the mean of each group of runs. */
export interface Turned {
  raw_ns: number[];
  duration_s: number;
}

export interface Staged {
  tokenize_ns: number[];
  infer_ns: number[];
  e2e_ns: number[];
}

export interface Remembered {
  wasm_bytes: number | null;
}
