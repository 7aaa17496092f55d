/** The line to the program that serves the page: it asks, the page answers. */

import type { Numbered } from "./protocol";
import { pack, unpack, type Tensors } from "./wire";

const PAUSE_MS = 1000;
const BEAT_MS = 5000;
// In the tab's own store: a page that is opened again in it is known as the same.
const STORE = "edge-page";

/** Another page is at work, or this address is no longer valid. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** browser: what the program takes this one for. */
export interface Claim {
  key: string;
  title: string;
  browser: string;
}

export interface State {
  hidden: boolean;
  battery: { level: number; charging: boolean } | null;
}

/** One page's turn at the program. `lost` is told whether the line is down. */
export class Channel {
  private key = "";

  constructor(
    private readonly base: string,
    private readonly lost: (down: boolean) => void,
  ) {}

  /** Ask to be the page. Throws Refused while another is, or for a wrong address. */
  async claim(info: object): Promise<Claim> {
    const body = JSON.stringify({ page: pageName(), info });
    const answer = await this.ask("claim", { method: "POST", body });
    if (!answer.ok) throw new Refused(answer.status, await answer.text());
    const claim = (await answer.json()) as Claim;
    this.key = claim.key;
    return claim;
  }

  /** The next request, however long it takes. Throws Refused when another page took over. */
  async next(): Promise<[Numbered, Tensors]> {
    for (;;) {
      const answer = await this.ask("next", {});
      if (answer.status === 200) {
        const [message, tensors] = unpack(await answer.arrayBuffer());
        return [message as unknown as Numbered, tensors];
      }
      if (answer.status !== 204) throw new Refused(answer.status, await answer.text());
    }
  }

  /** What became of a request. artifact: the checksum of the model that was run. */
  async reply(number: number, artifact: string, reply: object, tensors: Tensors): Promise<void> {
    const body = pack({ number, artifact, reply }, tensors);
    const answer = await this.ask("reply", { method: "POST", body });
    // 410: the program no longer waits for this one.
    if (!answer.ok && answer.status !== 410) throw new Refused(answer.status, await answer.text());
  }

  /** Say regularly that the page is there, and when it leaves. */
  beat(state: () => State): void {
    const tell = () =>
      this.send("beat", { method: "POST", body: JSON.stringify(state()) }).catch(() => undefined);
    setInterval(tell, BEAT_MS);
    document.addEventListener("visibilitychange", tell);
    window.addEventListener("pagehide", () => {
      navigator.sendBeacon(new URL("bye", this.base), this.key);
    });
    void tell();
  }

  /** As often as it takes. */
  private async ask(path: string, options: RequestInit): Promise<Response> {
    for (;;) {
      try {
        const answer = await this.send(path, options);
        this.lost(false);
        return answer;
      } catch {
        this.lost(true);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  private send(path: string, options: RequestInit): Promise<Response> {
    const headers = { "Edge-Page": this.key };
    return fetch(new URL(path, this.base), { ...options, headers, cache: "no-store" });
  }
}

function pageName(): string {
  let name: string | null = null;
  try {
    name = sessionStorage.getItem(STORE);
  } catch {
    // A browser that keeps nothing: every opening is another page.
  }
  if (name === null) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    try {
      sessionStorage.setItem(STORE, name);
    } catch {
      // As above.
    }
  }
  return name;
}
