// The interviewer's face: one thin circle, and always the word for its state beside it.
import type { Track } from 'livekit-client';
import { useEffect, useRef } from 'react';
import { RING_WORDS, type RingState } from '../interviewer';
import { watchLevel } from '../media';

/** Which sound moves the stroke: the interviewer's own while it speaks, the viewer's while it listens. */
export function Ring({
  state,
  name,
  voice,
  microphone,
  small,
}: {
  state: RingState;
  name: string;
  voice?: Track;
  microphone?: Track;
  small?: boolean;
}) {
  const svg = useRef<SVGSVGElement>(null);
  const source = state === 'speaking' ? voice : state === 'listening' ? microphone : undefined;
  const track = source?.mediaStreamTrack;

  useEffect(() => {
    const target = svg.current;
    if (!track || !target || matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    let smooth = 0;
    const end = watchLevel(track, (level) => {
      smooth += (level - smooth) * (level > smooth ? 0.5 : 0.15);
      target.style.setProperty('--level', smooth.toFixed(3));
    });
    return () => {
      end();
      target.style.removeProperty('--level');
    };
  }, [track]);

  return (
    <div className={`ring ring-${state}${small ? ' ring-small' : ''}`} data-testid="ring" data-state={state}>
      <svg ref={svg} viewBox="0 0 200 200" aria-hidden="true">
        <circle className="ring-base" cx="100" cy="100" r="84" pathLength="100" />
        <circle className="ring-stroke" cx="100" cy="100" r="84" pathLength="100" />
      </svg>
      <div className="ring-words">
        <span className="ring-name">{name}</span>
        <span className="ring-state" role="status" aria-live="polite" data-testid="interviewer-state">
          {RING_WORDS[state]}
        </span>
      </div>
    </div>
  );
}
