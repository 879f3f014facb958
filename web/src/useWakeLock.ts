// A phone that goes dark in the middle of an answer would end the call.
import { useEffect } from 'react';

export function useWakeLock(): void {
  useEffect(() => {
    let lock: WakeLockSentinel | undefined;
    let current = true;
    const take = async () => {
      if (document.visibilityState !== 'visible') return;
      try {
        const taken = await navigator.wakeLock?.request('screen');
        if (current) lock = taken;
        else void taken?.release();
      } catch {
        // Low battery, say: the call goes on either way.
      }
    };
    void take();
    // The browser lets it go when the page is hidden.
    document.addEventListener('visibilitychange', take);
    return () => {
      current = false;
      document.removeEventListener('visibilitychange', take);
      void lock?.release();
    };
  }, []);
}
