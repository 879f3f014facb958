// Preferences of this browser: how things look, which devices. No content, no names.
import { useSyncExternalStore } from 'react';

export type Theme = 'system' | 'light' | 'dark';

export const CAPTION_SIZES = [17, 21, 28, 38] as const;

export interface Prefs {
  theme: Theme;
  captions: boolean;
  /** px, one of CAPTION_SIZES. */
  captionSize: number;
  hintsSeen: boolean;
  microphone: string;
  camera: string;
  speaker: string;
  /** Camera on when joining. */
  cameraOn: boolean;
}

const KEY = 'viva.prefs';
const DEFAULTS: Prefs = {
  theme: 'system',
  captions: true,
  captionSize: 21,
  hintsSeen: false,
  microphone: '',
  camera: '',
  speaker: '',
  cameraOn: true,
};

function load(): Prefs {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Prefs>) };
  } catch {
    return DEFAULTS;
  }
}

let current = load();
const listeners = new Set<() => void>();

export const prefs = () => current;

export function setPrefs(change: Partial<Prefs>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
  applyTheme();
  listeners.forEach((listener) => listener());
}

/** The system's wish needs no attribute; the style sheet follows it by itself. */
export function applyTheme(): void {
  const root = document.documentElement;
  if (current.theme === 'system') delete root.dataset.theme;
  else root.dataset.theme = current.theme;
}

export function usePrefs(): Prefs {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, prefs);
}

/** The next caption size up (+1) or down (-1); the same at either end. */
export function stepCaptionSize(size: number, step: 1 | -1): number {
  const at = CAPTION_SIZES.findIndex((s) => s >= size);
  const next = (at < 0 ? CAPTION_SIZES.length - 1 : at) + step;
  return CAPTION_SIZES[Math.min(Math.max(next, 0), CAPTION_SIZES.length - 1)] ?? size;
}
