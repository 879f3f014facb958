import { useEffect, useRef } from 'react';
import { watchLevel } from '../media';

/** How loud a microphone is, as a bar. `onHeard` is called once, at the first sound that is clearly a voice. */
export function LevelMeter({ track, onHeard }: { track: MediaStreamTrack | undefined; onHeard: () => void }) {
  const bar = useRef<HTMLDivElement>(null);
  const heard = useRef(onHeard);
  heard.current = onHeard;
  useEffect(() => {
    if (!track) return;
    let told = false;
    const end = watchLevel(track, (level) => {
      if (bar.current) bar.current.style.transform = `scaleX(${level.toFixed(3)})`;
      if (level > 0.4 && !told) {
        told = true;
        heard.current();
      }
    });
    return end;
  }, [track]);
  // Its meaning is said in words below; a screen reader has no use for thirty values a second.
  return (
    <div className="meter" aria-hidden="true" data-testid="microphone-level">
      <div ref={bar} />
    </div>
  );
}
