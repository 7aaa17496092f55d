/** What the page shows: what goes on now, the models so far, and the device. */

import type { DeviceInfo } from "./device";
import type { Loaded } from "./protocol";
import { percentile, threeFigures } from "./statistics";

const ENGINES: Record<string, string> = {
  "onnxruntime-web": "ONNX Runtime Web",
  "onnxruntime-webgpu": "ONNX Runtime Web, WebGPU",
  "litert-web": "LiteRT.js",
};

type State = "starting" | "running" | "finished" | "refused" | "failed";

/** What is known of a model. */
interface Model {
  label: string;
  engine: string;
  loaded: Loaded | null;
  turns: number;
  rounds: number;
  raw: number[];
  failure: string | null;
}

export class View {
  private readonly models = new Map<string, Model>();
  private active = "";
  private down = false;
  private words = "";

  title(text: string): void {
    element("title").textContent = text;
  }

  /** part: of the whole, or null where that cannot be told. */
  phase(state: State, text: string, part: number | null = null): void {
    document.body.dataset.state = state;
    this.words = text;
    this.showPhase();
    const bar = element<HTMLProgressElement>("progress");
    bar.hidden = state !== "running" && state !== "starting";
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
    if (state === "finished" || state === "refused") element("hint").textContent = "";
  }

  hint(text: string): void {
    element("hint").textContent = text;
  }

  lost(down: boolean): void {
    if (down === this.down) return;
    this.down = down;
    this.showPhase();
  }

  /** A model is loaded, perhaps once more after the page was opened again. */
  begin(cell: string, label: string, engine: string, turns: number, raw: number[]): void {
    const known = this.models.get(cell);
    const rounds = known?.rounds ?? 0;
    this.models.set(cell, { label, engine, loaded: null, turns, rounds, raw: [...raw], failure: null });
    this.active = cell;
    this.showModels();
  }

  loaded(cell: string, loaded: Loaded): void {
    this.change(cell, (model) => (model.loaded = loaded));
  }

  failed(cell: string, reason: string): void {
    this.change(cell, (model) => (model.failure = reason));
  }

  rounds(cell: string, rounds: number): void {
    this.change(cell, (model) => (model.rounds = rounds));
  }

  turn(cell: string, raw: number[]): void {
    this.change(cell, (model) => {
      model.turns++;
      model.raw.push(...raw);
    });
  }

  label(cell: string): string {
    return this.models.get(cell)?.label ?? cell;
  }

  /** The round that is going on, how many there are, and what part of all turns is done. */
  progress(): { round: number; rounds: number; part: number } {
    const running = [...this.models.values()].filter(({ failure }) => failure === null);
    const rounds = Math.max(1, ...running.map((model) => model.rounds));
    const turns = Math.max(0, ...running.map((model) => model.turns));
    const done = running.reduce((sum, model) => sum + model.turns, 0);
    const part = Math.max(done / (rounds * Math.max(1, running.length)), (turns - 1) / rounds);
    return { round: Math.min(Math.max(turns, 1), rounds), rounds, part: Math.min(1, part) };
  }

  activate(cell: string): void {
    if (this.active === cell) return;
    this.active = cell;
    this.showModels();
  }

  device(info: DeviceInfo, browser: string): void {
    const facts: [string, string][] = [
      ["Browser", browser],
      ["System", [info.platform, info.platform_version].filter(Boolean).join(" ")],
      ["Model", info.model ?? ""],
      ["Processor", info.architecture ?? ""],
      ["Cores", info.cores === null ? "" : String(info.cores)],
      ["Memory", info.memory_gb === null ? "" : `${info.memory_gb} GB or more`],
      ["Threads", info.isolated ? "possible" : "one only: this address is not isolated"],
      ["Clock", `steps of ${info.clock_us} µs`],
      ["WebGPU", info.webgpu ?? "none"],
    ];
    const list = element("device");
    list.replaceChildren();
    for (const [name, value] of facts) {
      if (value !== "") list.append(make("dt", name), make("dd", value));
    }
    element("facts").hidden = false;
  }

  private change(cell: string, update: (model: Model) => void): void {
    const model = this.models.get(cell);
    if (model !== undefined) update(model);
    this.showModels();
  }

  private showPhase(): void {
    const lost = "The computer cannot be reached, trying again";
    element("phase").textContent = this.down ? lost : this.words;
  }

  private showModels(): void {
    element("models").hidden = this.models.size === 0;
    const notes: string[] = [];
    const rows = [...this.models].map(([cell, model]) => {
      for (const note of model.loaded?.notes ?? []) notes.push(`${model.label}: ${note}`);
      const row = rowOf(model);
      row.classList.toggle("active", cell === this.active);
      return row;
    });
    element("rows").replaceChildren(...rows);
    element("notes").replaceChildren(...[...new Set(notes)].map((note) => make("li", note)));
  }
}

function rowOf({ label, engine, loaded, raw, failure }: Model): HTMLTableRowElement {
  const row = document.createElement("tr");
  row.append(make("td", label), make("td", ENGINES[engine] ?? engine));
  if (failure !== null) {
    const cell = make("td", failure);
    cell.className = "failed";
    cell.setAttribute("colspan", "6");
    row.append(cell);
    return row;
  }
  const milliseconds = (value: number | undefined) =>
    value === undefined ? "" : threeFigures(value / 1e6);
  const figures: [string, string][] = [
    ["Threads", loaded === null ? "" : String(loaded.threads)],
    ["Load ms", milliseconds(loaded?.load_ns)],
    ["First ms", milliseconds(loaded?.first_ns)],
    ["p50 ms", raw.length === 0 ? "" : milliseconds(percentile(raw, 0.5))],
    ["p90 ms", raw.length === 0 ? "" : milliseconds(percentile(raw, 0.9))],
    ["Runs", raw.length === 0 ? "" : String(raw.length)],
  ];
  for (const [name, value] of figures) {
    const cell = make("td", value);
    cell.setAttribute("data-name", name);
    row.append(cell);
  }
  return row;
}

function element<E extends HTMLElement = HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

function make(tag: string, text: string): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
