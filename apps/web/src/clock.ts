/** The page's clock, and how finely it ticks: browsers blur it unless a page is isolated. */

const LOOKS = 40;
const PATIENCE_MS = 50;

export function now(): number {
  return performance.now();
}

/** Milliseconds of the smallest step that the clock makes. */
export function resolution(read: () => number = now): number {
  let smallest = Infinity;
  const begin = read();
  let last = begin;
  for (let steps = 0; steps < LOOKS && last - begin < PATIENCE_MS; ) {
    const time = read();
    if (time > last) {
      smallest = Math.min(smallest, time - last);
      steps++;
    }
    last = time;
  }
  return Number.isFinite(smallest) ? smallest : PATIENCE_MS;
}

// A step of the clock may be this part of what is timed.
const STEPS_AT_LEAST = 20;
const LARGEST_GROUP = 1000;

/** How many runs to time together, so that the clock's steps are small beside them. */
export function groupOf(runMs: number, stepMs: number): number {
  const wanted = Math.ceil((STEPS_AT_LEAST * stepMs) / Math.max(runMs, 1e-6));
  return Math.min(Math.max(1, wanted), LARGEST_GROUP);
}
