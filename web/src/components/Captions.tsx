// Captions of both sides, newest at the bottom. It follows the newest line unless the reader scrolled up.
import { useEffect, useLayoutEffect, useRef } from 'react';
import type { Caption } from '../captions';

export function Captions({
  captions,
  nameOf,
  own,
  size,
  empty,
}: {
  captions: Caption[];
  nameOf: (identity: string) => string;
  own: string;
  /** px */
  size: number;
  empty: string;
}) {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);

  useLayoutEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [captions, size]);

  // A phone that is turned, or a keyboard that opens, must not hide the newest line.
  useEffect(() => {
    const target = box.current;
    if (!target) return;
    const observer = new ResizeObserver(() => {
      if (follows.current) target.scrollTop = target.scrollHeight;
    });
    observer.observe(target);
    return () => observer.disconnect();
  }, []);

  return (
    <div
      ref={box}
      className="captions"
      role="log"
      aria-label="Captions"
      // Whoever uses a screen reader hears the people speak; reading each word over them would drown them.
      aria-live="off"
      tabIndex={0}
      data-testid="captions"
      style={{ fontSize: `${size / 16}rem` }}
      onScroll={({ currentTarget: el }) => {
        follows.current = el.scrollHeight - el.scrollTop - el.clientHeight < 48;
      }}
    >
      {captions.length === 0 && <p className="captions-empty">{empty}</p>}
      {captions.map((caption) => (
        <p
          key={`${caption.identity}/${caption.segment}`}
          className={`caption${caption.final ? '' : ' caption-interim'}`}
          data-testid="caption"
          data-identity={caption.identity}
          data-own={caption.identity === own}
          data-final={caption.final}
        >
          <span className="caption-name">{nameOf(caption.identity)}</span>
          <span className="caption-text">{caption.text}</span>
        </p>
      ))}
    </div>
  );
}
