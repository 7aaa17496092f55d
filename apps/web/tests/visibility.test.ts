import { beforeEach, expect, test, vi } from "vitest";
import { undisturbed } from "../src/visibility";

class Page extends EventTarget {
  visibilityState = "visible";

  becomes(state: string) {
    this.visibilityState = state;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

let page: Page;

beforeEach(() => {
  page = new Page();
  vi.stubGlobal("document", page);
});

test("what is done in front counts at once", async () => {
  const work = vi.fn(async () => 7);
  expect(await undisturbed(work)).toBe(7);
  expect(work).toHaveBeenCalledTimes(1);
});

test("what the page was hidden during is done again, in front", async () => {
  let runs = 0;
  const work = async () => {
    runs++;
    if (runs === 1) {
      page.becomes("hidden");
      setTimeout(() => page.becomes("visible"), 20);
    }
    expect(runs === 1 || page.visibilityState === "visible").toBe(true);
    return runs;
  };
  expect(await undisturbed(work)).toBe(2);
});

test("a failure is not done again", async () => {
  const work = vi.fn(async () => {
    throw new Error("no");
  });
  await expect(undisturbed(work)).rejects.toThrow("no");
  expect(work).toHaveBeenCalledTimes(1);
});
