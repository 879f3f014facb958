// What the AI interviewer says about itself, from the attributes of its participant.

export const INTERVIEWER_IDENTITY = 'viva-interviewer';

export interface Progress {
  asked: number;
  total: number;
  question: string;
}

export type Recognition = 'on' | 'off' | 'degraded';

/** The five faces of the ring, and one for the time before it is here. */
export type RingState = 'joining' | 'listening' | 'thinking' | 'speaking' | 'waiting' | 'resting';

export interface InterviewerInfo {
  present: boolean;
  progress?: Progress;
  recognition: Recognition;
  /** The person asked for time to think. */
  hold: boolean;
  /** What it waits for before it can go on, e.g. `consent`. */
  waiting?: string;
  /** Why the interview is over; undefined while it is not. */
  ended?: string;
}

export function parseProgress(text: string | undefined): Progress | undefined {
  if (!text) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { asked, total, question } = value as Record<string, unknown>;
    if (!isCount(asked) || !isCount(total) || total < 1) return undefined;
    return { asked: Math.min(asked, total), total, question: typeof question === 'string' ? question.trim() : '' };
  } catch {
    return undefined;
  }
}

const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0;

export function readAttributes(attributes: Readonly<Record<string, string>> | undefined): InterviewerInfo {
  if (!attributes) return { present: false, recognition: 'on', hold: false };
  const recognition = attributes['viva.recognition'];
  return {
    present: true,
    progress: parseProgress(attributes['viva.progress']),
    recognition: recognition === 'off' || recognition === 'degraded' ? recognition : 'on',
    hold: attributes['viva.hold'] === '1',
    waiting: attributes['viva.waiting'] || undefined,
    ended: attributes['viva.ended'] || undefined,
  };
}

/**
 * Which face the ring shows. `microphoneOn` is the viewer's own, or true for those whose answers are not awaited.
 */
export function ringState(
  attributes: Readonly<Record<string, string>> | undefined,
  microphoneOn: boolean,
): RingState {
  if (!attributes) return 'joining';
  const info = readAttributes(attributes);
  const state = attributes['lk.agent.state'];
  if (state === 'speaking') return 'speaking';
  if (info.ended || info.waiting) return 'resting';
  if (info.hold) return 'waiting';
  if (state === 'thinking') return 'thinking';
  if (state === 'listening') return microphoneOn ? 'listening' : 'waiting';
  if (state === 'idle') return 'resting';
  return 'joining';
}

export const RING_WORDS: Record<RingState, string> = {
  joining: 'Getting ready',
  listening: 'Listening',
  thinking: 'Thinking',
  speaking: 'Speaking',
  waiting: 'Waiting for you',
  resting: 'Resting',
};
