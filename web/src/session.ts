// What this tab remembers, so that a reload comes back to the same place. Nothing of it outlives the tab.
import type { Consents } from './consent';

/** What was chosen before joining. Nothing exists on the server yet. */
export type Draft = {
  name: string;
  planTitle: string;
  consents: Consents;
  noticeVersion: string;
} & ({ kind: 'practice'; plan: string; persona: string } | { kind: 'guest'; interview: string; invite: string });

/** A place in an interview. */
export interface Call {
  id: string;
  room: string;
  url: string;
  token: string;
  identity: string;
  name: string;
  planTitle: string;
  role: 'interviewee' | 'interviewer';
  noticeVersion: string;
  /** Only the one who started has it to give away. */
  invitePath?: string;
}

const DRAFT = 'viva.draft';
const callKey = (id: string) => `viva.call.${id}`;

function read<T>(key: string): T | undefined {
  try {
    const text = sessionStorage.getItem(key);
    return text ? (JSON.parse(text) as T) : undefined;
  } catch {
    return undefined;
  }
}

function write(key: string, value: unknown): void {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is off: the page works, only a reload starts anew.
    memory.set(key, value);
  }
}

const memory = new Map<string, unknown>();
const recall = <T>(key: string): T | undefined => read<T>(key) ?? (memory.get(key) as T | undefined);

export const loadDraft = () => recall<Draft>(DRAFT);
export const saveDraft = (draft: Draft) => write(DRAFT, draft);
export const loadCall = (id: string) => recall<Call>(callKey(id));
export const saveCall = (call: Call) => write(callKey(call.id), call);

/** The signalling address: the server's word, or this page's own origin. */
export function signalUrl(url: string, here: { protocol: string; host: string }): string {
  if (url) return url;
  return `${here.protocol === 'https:' ? 'wss' : 'ws'}://${here.host}`;
}
