/** The page of `edge benchmark --device browser`: does what the program asks, and shows it. */

import "./style.css";
import { Cells } from "./cells";
import { Channel, Refused } from "./channel";
import { words } from "./cell/worker";
import { battery, describe } from "./device";
import { Performer } from "./performer";
import { View } from "./view";

const RETRY_MS = 3000;

async function main(): Promise<void> {
  const base = document.baseURI;
  const view = new View();
  const channel = new Channel(base, (down) => view.lost(down));
  const info = await describe();
  view.device(info, await claim(channel, view, info));
  const power = await battery();
  channel.beat(() => ({
    hidden: document.visibilityState === "hidden",
    battery: power && { level: power.level, charging: power.charging },
  }));
  void stayAwake();
  const cells = new Cells(base);
  const performer = new Performer(base, cells, view);
  for (;;) {
    const [request, tensors] = await channel.next();
    const [reply, found] = await performer.perform(request, tensors);
    const artifact = "cell" in request ? cells.artifact(request.cell) : "";
    await channel.reply(request.number, artifact, reply, found);
    if (request.do === "finish") return;
  }
}

/** Become the page, or say why not and try again; the browser's name. */
async function claim(channel: Channel, view: View, info: object): Promise<string> {
  for (;;) {
    try {
      const { title, browser } = await channel.claim(info);
      view.title(title);
      view.phase("running", "Waiting for the first model");
      view.hint("Leave this page open and in front until it has finished.");
      return browser;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 409) throw error;
      view.phase("refused", "Another page is at work");
      view.hint(
        `One page at a time: ${error.message.trim()}. Close that one, and this page takes its place ` +
          "if it is in the same browser.",
      );
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** Keep the screen on where a browser lets a page do so; it forgets when the page is hidden. */
async function stayAwake(): Promise<void> {
  const lock = async () => {
    if (document.visibilityState === "visible") await navigator.wakeLock?.request("screen");
  };
  document.addEventListener("visibilitychange", () => void lock().catch(() => undefined));
  await lock().catch(() => undefined);
}

main().catch((error: unknown) => {
  const view = new View();
  const text = error instanceof Refused ? error.message : `The page failed: ${words(error)}`;
  view.phase("failed", text);
});
