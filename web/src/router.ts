// Five addresses need no library.
import { useSyncExternalStore } from 'react';

const listeners = new Set<() => void>();

let moved = false;
/** Whether the page came here by itself, so that a screen reader is to be told. */
export const hasMoved = () => moved;

export function navigate(to: string, replace = false): void {
  if (replace) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  moved = true;
  window.scrollTo(0, 0);
  listeners.forEach((listener) => listener());
}

export function usePath(): string {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      window.addEventListener('popstate', listener);
      return () => {
        listeners.delete(listener);
        window.removeEventListener('popstate', listener);
      };
    },
    () => location.pathname,
  );
}

export type Route =
  | { page: 'start' }
  | { page: 'ready' }
  | { page: 'room' | 'join' | 'transcript'; id: string }
  | { page: 'unknown' };

export function route(path: string): Route {
  const [first = '', second, ...rest] = path.split('/').filter(Boolean);
  if (rest.length === 0) {
    if (!first) return { page: 'start' };
    if (first === 'ready' && !second) return { page: 'ready' };
    if ((first === 'room' || first === 'join' || first === 'transcript') && second) {
      try {
        return { page: first, id: decodeURIComponent(second) };
      } catch {
        return { page: 'unknown' };
      }
    }
  }
  return { page: 'unknown' };
}
