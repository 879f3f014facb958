// Our own small icons: 24 units, one stroke. Always beside or instead of a word that a screen reader gets.
const PATHS = {
  microphone: 'M12 3.5a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0v-5a3 3 0 0 1 3-3ZM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3',
  microphoneOff:
    'M15 10.5v-4a3 3 0 0 0-5.7-1.3M9 9.5v2a3 3 0 0 0 4.6 2.5M5.5 11.5a6.5 6.5 0 0 0 10.2 5.3M18.3 13a6.5 6.5 0 0 0 .2-1.5M12 18v3M4 4l16 16',
  camera: 'M4.5 6.5h9a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 3 16V8a1.5 1.5 0 0 1 1.5-1.5ZM15 10.8l6-3.3v9l-6-3.3',
  cameraOff:
    'M9.5 6.5h4A1.5 1.5 0 0 1 15 8v4M15 10.8l6-3.3v9l-3.5-1.9M14.8 16.7a1.5 1.5 0 0 1-1.3.8h-9A1.5 1.5 0 0 1 3 16V8a1.5 1.5 0 0 1 1.5-1.5M4 4l16 16',
  share: 'M4 5h16v11H4ZM9 20h6M12 13V8M9.5 10.2 12 7.8l2.5 2.4',
  thinking: 'M9 6v12M15 6v12',
  done: 'M5 12.5 10 17.5 19.5 7',
  more: 'M6 12h.01M12 12h.01M18 12h.01',
  leave: 'M13 4.5H6.5A1.5 1.5 0 0 0 5 6v12a1.5 1.5 0 0 0 1.5 1.5H13M10.5 12H20M16.5 8.2 20.3 12l-3.8 3.8',
  close: 'M6 6l12 12M18 6 6 18',
  speaker: 'M4.5 9.5v5h3.5l4.5 4v-13l-4.5 4ZM16 9a4.5 4.5 0 0 1 0 6M18.5 6.5a8 8 0 0 1 0 11',
  theme: 'M12 4a8 8 0 1 0 0 16ZM12 4a8 8 0 0 1 0 16',
  invite: 'M10 12.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM3.5 19.5c.6-3.3 3.2-5 6.5-5s5.9 1.7 6.5 5M19 8v6M16 11h6',
  download: 'M12 4v11M7.5 11 12 15.5 16.5 11M5 19.5h14',
  back: 'M19 12H5M11 6l-6 6 6 6',
  attention: 'M12 4.5 21 19.5H3ZM12 10.5v4M12 17h.01',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className={`icon icon-${name}`} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
