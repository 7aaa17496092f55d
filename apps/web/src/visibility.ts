/** Browsers slow down what nobody sees: work counts only when the page was in front throughout. */

/** Do something, and again when the page was hidden meanwhile. */
export async function undisturbed<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    await visible();
    let hidden = false;
    const notice = () => (hidden = true);
    document.addEventListener("visibilitychange", notice);
    try {
      const found = await work();
      if (!hidden) return found;
    } finally {
      document.removeEventListener("visibilitychange", notice);
    }
  }
}

function visible(): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (document.visibilityState === "hidden") return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });
}
