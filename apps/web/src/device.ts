/** What can be found out about the device that shows the page. */

import { resolution } from "./clock";

export interface DeviceInfo {
  user_agent: string;
  brands: string[];
  platform: string | null;
  platform_version: string | null;
  model: string | null;
  architecture: string | null;
  cores: number | null;
  memory_gb: number | null;
  isolated: boolean;
  secure: boolean;
  clock_us: number;
  webgpu: string | null;
}

interface Hints {
  fullVersionList?: { brand: string; version: string }[];
  platform?: string;
  platformVersion?: string;
  model?: string;
  architecture?: string;
  bitness?: string;
}

interface ModernNavigator {
  userAgentData?: { getHighEntropyValues(names: string[]): Promise<Hints> };
  deviceMemory?: number;
  gpu?: { requestAdapter(): Promise<{ info?: Record<string, string> } | null> };
  getBattery?(): Promise<Battery>;
}

export interface Battery {
  level: number;
  charging: boolean;
}

const PATIENCE_MS = 3000;
const HINTS = ["architecture", "bitness", "model", "platformVersion", "fullVersionList"];

export async function describe(): Promise<DeviceInfo> {
  const modern = navigator as unknown as ModernNavigator;
  const hints = (await within(modern.userAgentData?.getHighEntropyValues(HINTS))) ?? {};
  const bits = hints.bitness && hints.architecture ? `-${hints.bitness}` : "";
  return {
    user_agent: navigator.userAgent,
    brands: (hints.fullVersionList ?? []).map(({ brand, version }) => `${brand} ${version}`),
    platform: hints.platform || null,
    platform_version: hints.platformVersion || null,
    model: hints.model || null,
    architecture: hints.architecture ? hints.architecture + bits : null,
    cores: navigator.hardwareConcurrency || null,
    memory_gb: modern.deviceMemory ?? null,
    isolated: globalThis.crossOriginIsolated === true,
    secure: globalThis.isSecureContext,
    clock_us: Math.round(resolution() * 1e3 * 10) / 10,
    webgpu: await adapter(modern),
  };
}

/** Its battery, which changes on its own; null where the browser does not tell. */
export async function battery(): Promise<Battery | null> {
  const modern = navigator as unknown as ModernNavigator;
  return (await within(modern.getBattery?.())) ?? null;
}

async function adapter(modern: ModernNavigator): Promise<string | null> {
  const found = await within(modern.gpu?.requestAdapter());
  if (!found) return null;
  const { vendor, architecture, description } = found.info ?? {};
  return [vendor, architecture, description].filter(Boolean).join(" ") || "unnamed";
}

/** What a promise gives soon; null when it fails or takes its time. */
async function within<T>(promise: Promise<T> | undefined): Promise<T | null> {
  if (promise === undefined) return null;
  const late = new Promise<null>((resolve) => setTimeout(resolve, PATIENCE_MS, null));
  return Promise.race([promise.catch(() => null), late]);
}
