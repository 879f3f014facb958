// What a person consents to. Each purpose is asked, given and withdrawn by itself.
import type { ConsentEntry } from './api';

export type Purpose = 'ai_interviewer' | 'transcription';

export const PURPOSES: readonly Purpose[] = ['ai_interviewer', 'transcription'];

export type Consents = Record<Purpose, boolean>;

/** What is assumed until the record says otherwise: nothing is given. */
export const NONE: Consents = { ai_interviewer: false, transcription: false };

/** The record holds every change; the latest of each purpose counts. */
export function latest(entries: ConsentEntry[]): Consents {
  const result: Consents = { ...NONE };
  const seen: Partial<Record<Purpose, number>> = {};
  for (const entry of entries) {
    if (!PURPOSES.includes(entry.purpose)) continue;
    if (entry.at_ms < (seen[entry.purpose] ?? -Infinity)) continue;
    seen[entry.purpose] = entry.at_ms;
    result[entry.purpose] = entry.granted;
  }
  return result;
}
