/** Does what the program asks, and shows what it is. */

import { words, type Answer } from "./cell/worker";
import type { Cells } from "./cells";
import { download } from "./files";
import type {
  AnswersRequest,
  LoadRequest,
  Numbered,
  StagesRequest,
  Turned,
  TurnRequest,
  WarmRequest,
} from "./protocol";
import type { Tensors } from "./wire";
import type { View } from "./view";
import { undisturbed } from "./visibility";

type Done = [reply: object, tensors: Tensors];

export class Performer {
  private answered = new Map<string, number>();

  constructor(
    private readonly base: string,
    private readonly cells: Cells,
    private readonly view: View,
  ) {}

  /** The reply to a request; what fails is told in it. */
  async perform(request: Numbered, tensors: Tensors): Promise<Done> {
    for (const cell of request.ended ?? []) this.cells.close(cell);
    if ("cell" in request) this.view.activate(request.cell);
    try {
      return await this.answer(request, tensors);
    } catch (error) {
      const reason = words(error);
      if (request.do === "load") this.view.failed(request.cell, reason);
      return [{ error: reason }, {}];
    }
  }

  private async answer(request: Numbered, tensors: Tensors): Promise<Done> {
    switch (request.do) {
      case "load":
        return plain(await this.load(request, tensors));
      case "warm":
        return plain(await this.warm(request));
      case "turn":
        return plain(await this.turn(request));
      case "memory":
        return this.cells.ask(request.cell, { do: "memory" });
      case "answers":
        return this.answers(request, tensors);
      case "stages":
        return plain(await this.stages(request));
      case "finish":
        this.cells.closeAll();
        this.view.activate("");
        this.view.phase(
          "finished",
          request.complete
            ? "Finished: the computer has all figures"
            : "The computer ended the measurement",
        );
        return plain({});
    }
  }

  private async load(request: LoadRequest, feeds: Tensors): Promise<object> {
    const { cell, label, engine, recorded } = request;
    this.view.begin(cell, label, engine, recorded.turns, recorded.raw_ns);
    const model = async () => {
      const data = await download(new URL(request.path, this.base), request.sha256, (part) =>
        this.view.phase("running", `Downloading ${label}`, part),
      );
      this.view.phase("running", `Loading ${label}`);
      return data;
    };
    const loaded = await this.cells.load(request, feeds, model);
    this.view.loaded(cell, loaded);
    return loaded;
  }

  private async warm({ cell, runs, min_s, max_s, rounds }: WarmRequest): Promise<Answer> {
    this.view.rounds(cell, rounds);
    this.view.phase("running", `Warming up ${this.view.label(cell)}`);
    return undisturbed(async () => {
      const [reply] = await this.cells.ask(cell, { do: "warm", runs, min_s, max_s });
      return reply;
    });
  }

  private async turn({ cell, runs, min_s, max_s }: TurnRequest): Promise<Answer> {
    const { round, rounds, part } = this.view.progress();
    this.view.phase("running", `Timing: round ${round} of ${rounds}`, part);
    const reply = await undisturbed(async () => {
      const [found] = await this.cells.ask(cell, { do: "turn", runs, min_s, max_s });
      return found;
    });
    this.view.turn(cell, (reply as Turned).raw_ns);
    return reply;
  }

  private async answers({ cell }: AnswersRequest, tensors: Tensors): Promise<Done> {
    const count = new Set(Object.keys(tensors).map((key) => key.split("/")[0])).size;
    const before = this.answered.get(cell) ?? 0;
    this.answered.set(cell, before + count);
    const label = this.view.label(cell);
    this.view.phase("running", `Asking ${label} for its answers: ${before + count} so far`);
    return this.cells.ask(cell, { do: "answers" }, tensors);
  }

  private async stages(request: StagesRequest): Promise<Answer> {
    const { cell, tokenizer, tokenizer_sha256, do: _, ...reading } = request;
    this.view.phase("running", `From text to answer: ${this.view.label(cell)}`);
    const data = await download(new URL(tokenizer, this.base), tokenizer_sha256);
    const text = new TextDecoder().decode(data);
    return undisturbed(async () => {
      const [reply] = await this.cells.ask(cell, { do: "stages", tokenizer: text, reading });
      return reply;
    });
  }

}

function plain(reply: object): Done {
  return [reply, {}];
}
