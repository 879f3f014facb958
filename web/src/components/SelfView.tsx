// The own camera, small in a corner of the stage. It is dragged to another corner, or moved by the arrow keys.
import type { LocalParticipant } from 'livekit-client';
import { useRef, useState, type KeyboardEvent, type PointerEvent } from 'react';
import { Tile } from './Tile';

interface Corner {
  right: boolean;
  bottom: boolean;
}

export function SelfView({ participant }: { participant: LocalParticipant }) {
  const [corner, setCorner] = useState<Corner>({ right: true, bottom: false });
  const [drag, setDrag] = useState<{ x: number; y: number }>();
  const start = useRef<{ x: number; y: number }>();
  const box = useRef<HTMLDivElement>(null);

  const onPointerDown = (event: PointerEvent) => {
    start.current = { x: event.clientX, y: event.clientY };
    box.current?.setPointerCapture(event.pointerId);
  };
  const onPointerMove = (event: PointerEvent) => {
    if (start.current) setDrag({ x: event.clientX - start.current.x, y: event.clientY - start.current.y });
  };
  const onPointerUp = () => {
    const self = box.current?.getBoundingClientRect();
    const stage = box.current?.parentElement?.getBoundingClientRect();
    if (start.current && drag && self && stage) {
      setCorner({
        right: self.x + self.width / 2 > stage.x + stage.width / 2,
        bottom: self.y + self.height / 2 > stage.y + stage.height / 2,
      });
    }
    start.current = undefined;
    setDrag(undefined);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const { key } = event;
    if (!key.startsWith('Arrow')) return;
    event.preventDefault();
    setCorner((old) => ({
      right: key === 'ArrowRight' ? true : key === 'ArrowLeft' ? false : old.right,
      bottom: key === 'ArrowDown' ? true : key === 'ArrowUp' ? false : old.bottom,
    }));
  };

  return (
    <div
      ref={box}
      className={`self ${corner.bottom ? 'self-bottom' : 'self-top'} ${corner.right ? 'self-right' : 'self-left'}`}
      style={drag && { transform: `translate(${drag.x}px, ${drag.y}px)`, transition: 'none' }}
      role="group"
      tabIndex={0}
      aria-label="Your own picture. Arrow keys move it to another corner."
      onPointerDown={onPointerDown}
      onPointerMove={onPointerMove}
      onPointerUp={onPointerUp}
      onPointerCancel={onPointerUp}
      onKeyDown={onKeyDown}
    >
      <Tile participant={participant} label="You" mirrored />
    </div>
  );
}
