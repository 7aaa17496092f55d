// Opens the page in a headless Chromium, as a phone or a desktop, until it has finished.
// node open.mjs ADDRESS [--desktop] [--throttle N] [--shots FOLDER] [--reload-at ROUND]
//   [--close-at ROUND] [--until STATE] [--insecure] [--webgpu] [--dark] [--seconds N]
// Prints one JSON object: the last state, what the page says, and whether it is too wide.

import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    desktop: { type: "boolean", default: false },
    throttle: { type: "string", default: "1" },
    shots: { type: "string" },
    "reload-at": { type: "string" },
    "close-at": { type: "string" },
    until: { type: "string", default: "finished" },
    insecure: { type: "boolean", default: false },
    webgpu: { type: "boolean", default: false },
    seconds: { type: "string", default: "300" },
    dark: { type: "boolean", default: false },
  },
});
const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const desktop = { viewport: { width: 1280, height: 800 } };
const flags = values.webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"] : [];
const browser = await chromium.launch({
  executablePath: process.env.EDGE_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", ...flags],
});
const errors = [];
try {
  const context = await browser.newContext({
    ...(values.desktop ? desktop : phone),
    colorScheme: values.dark ? "dark" : "light",
    ignoreHTTPSErrors: values.insecure,
  });
  const page = await context.newPage();
  page.on("console", (message) => {
    // LiteRT.js logs whatever it does as an error.
    if (message.type() === "error" && !/^(INFO|WARNING):/.test(message.text())) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  const session = await context.newCDPSession(page);
  await session.send("Emulation.setCPUThrottlingRate", { rate: Number(values.throttle) });
  await page.goto(positionals[0]);
  const limit = Number(values.seconds) * 1000;
  const round = values["reload-at"] ?? values["close-at"];
  if (round !== undefined) {
    await page.waitForFunction(
      (wanted) => Number(/round (\d+)/.exec(document.body.innerText)?.[1] ?? 0) >= wanted,
      Number(round),
      { timeout: limit },
    );
  }
  if (values["close-at"] !== undefined) {
    await page.close({ runBeforeUnload: false });
    process.exit(0);
  }
  if (values["reload-at"] !== undefined) {
    if (values.shots) await page.screenshot({ path: `${values.shots}/running.png`, fullPage: true });
    await page.reload();
  }
  await page.waitForFunction(
    (wanted) => [wanted, "failed"].includes(document.body.dataset.state),
    values.until,
    { timeout: limit },
  );
  if (values.shots) await page.screenshot({ path: `${values.shots}/finished.png`, fullPage: true });
  const state = await page.evaluate(() => document.body.dataset.state);
  const text = await page.evaluate(() => document.body.innerText);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  console.log(JSON.stringify({ state, text, wide, errors }));
} finally {
  await browser.close();
}
