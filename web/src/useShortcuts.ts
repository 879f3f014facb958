// Space = I'm done, T = thinking, M = microphone. Never while somebody types or a dialog is open.
import { useEffect, useRef } from 'react';

export interface Shortcuts {
  done?: () => void;
  thinking?: () => void;
  microphone: () => void;
}

/** What handles the key itself: Space presses a focused button. */
const OWN_KEYS = 'input, textarea, select, button, a[href], summary, [contenteditable], [role=button], [role=switch]';
const TYPING = 'input, textarea, select, [contenteditable]';

export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts);
  latest.current = shortcuts;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented) return;
      if (document.querySelector('dialog[open]')) return;
      const target = event.target instanceof Element ? event.target : null;
      const key = event.key.toLowerCase();
      const { done, thinking, microphone } = latest.current;
      const act = key === ' ' ? done : key === 't' ? thinking : key === 'm' ? microphone : undefined;
      if (!act || target?.closest(key === ' ' ? OWN_KEYS : TYPING)) return;
      event.preventDefault();
      act();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
}
