import type { Transcript } from './api';

/** Offset in ms as `m:ss`, or `h:mm:ss` from an hour on. */
export function clock(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, '0');
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes}:${two(s % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
}

/** Up to two letters that stand for a name. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const first = words[0] ?? '';
  const last = words.length > 1 ? (words[words.length - 1] ?? '') : '';
  return ([...first][0] ?? '?').toLocaleUpperCase() + ([...last][0] ?? '').toLocaleUpperCase();
}

/** The transcript as a plain text file. */
export function transcriptText(transcript: Transcript, title: string): string {
  const { interview, lines } = transcript;
  const head = [title || 'Interview'];
  if (interview.started_at_ms) head.push(new Date(interview.started_at_ms).toLocaleString());
  const body = lines.map(
    (line) => `[${clock(line.start_ms)}] ${line.name}: ${line.text}${line.interrupted ? ' …' : ''}`,
  );
  return `${head.join('\n')}\n\n${body.join('\n')}\n`;
}
