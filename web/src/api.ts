// The server's REST interface, typed, and its errors as sentences.
import type { Purpose } from './consent';

export interface Plan {
  id: string;
  title: string;
  role: string;
  level: string;
  minutes: number;
  questions: number;
}

export interface Persona {
  id: string;
  name: string;
  style: string;
}

export interface NoticeText {
  version: string;
  /** Who speaks: says plainly that it is an AI. */
  ai: string;
  /** What is kept. */
  kept: string;
}

export interface Practice {
  plans: Plan[];
  personas: Persona[];
  recognition: boolean;
  voice: string;
  notice: NoticeText;
}

export interface Admission {
  room: string;
  /** Address of the signalling server; empty means this page's own. */
  url: string;
  token: string;
  identity: string;
}

export interface Created extends Admission {
  id: string;
  invite_path: string;
}

export interface InviteInfo {
  interviewee_waiting: boolean;
  plan_title: string;
  notice: NoticeText;
}

export interface ConsentEntry {
  purpose: Purpose;
  granted: boolean;
  at_ms: number;
}

export type InterviewState = 'open' | 'live' | 'ended';

export interface Interview {
  id: string;
  plan: string;
  persona: string;
  state: InterviewState;
  end_reason: string | null;
  started_at_ms: number | null;
  ended_at_ms: number | null;
  questions_asked: number;
  questions_total: number;
}

export interface TranscriptLine {
  seq: number;
  identity: string;
  name: string;
  role: 'interviewee' | 'interviewer' | 'ai';
  start_ms: number;
  end_ms: number;
  text: string;
  interrupted: boolean;
}

export interface Transcript {
  interview: Interview;
  lines: TranscriptLine[];
}

/** A refusal of the server, or no answer at all (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** What a person may pass on to whoever runs the server. */
    readonly technical: string,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** Longer than any answer of a healthy server; a person should not look at a dead page longer than this. */
const TIMEOUT_MS = 15_000;

const UNREACHABLE = 'The server does not answer. Check your connection, then press Try again.';

/** Words for a status when the server gave none of its own. */
function fallbackSentence(status: number): string {
  if (status === 401 || status === 403) return 'This link does not let you in. Ask for a new one.';
  if (status === 404) return 'This interview was not found. Check the link, or start a new one.';
  if (status === 410) return 'This interview is over.';
  if (status === 429) return 'Many people are starting at this moment. Wait a minute, then press Try again.';
  return 'The server had a problem. Press Try again in a moment.';
}

/** Makes an error from a status and a body, which should be `application/problem+json` but may be anything. */
export function errorFromBody(status: number, body: string): ApiError {
  let problem: { title?: unknown; detail?: unknown; code?: unknown } = {};
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed === 'object' && parsed !== null) problem = parsed;
  } catch {
    // Not JSON: a proxy's page, say. The status alone speaks.
  }
  const text = (value: unknown) => (typeof value === 'string' ? value.trim() : '');
  // A fault of the server is not explained to the person by the server's own words.
  const detail = status < 500 ? text(problem.detail) || text(problem.title) : '';
  const code = text(problem.code) || `http_${status}`;
  return new ApiError(
    status,
    code,
    detail || fallbackSentence(status),
    [`HTTP ${status}`, code, text(problem.detail) || text(problem.title)].filter(Boolean).join(' · '),
  );
}

interface Options {
  method?: string;
  token?: string;
  body?: unknown;
}

async function request<T>(path: string, { method = 'GET', token, body }: Options = {}): Promise<T> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(path, {
      method,
      signal: abort.signal,
      headers: {
        Accept: 'application/json',
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw errorFromBody(response.status, text);
    return (text ? JSON.parse(text) : undefined) as T;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(0, 'unreachable', UNREACHABLE, String(error));
  } finally {
    clearTimeout(timer);
  }
}

const of = (id: string) => `/v1/interviews/${encodeURIComponent(id)}`;

export const api = {
  practice: () => request<Practice>('/v1/practice'),
  create: (body: { plan: string; persona: string; name: string }) =>
    request<Created>('/v1/interviews', { method: 'POST', body }),
  invite: (id: string, invite: string) =>
    request<InviteInfo>(`${of(id)}/invite?invite=${encodeURIComponent(invite)}`),
  join: (id: string, body: { invite: string; name: string }) =>
    request<Admission>(`${of(id)}/join`, { method: 'POST', body }),
  setConsent: (id: string, token: string, purpose: Purpose, granted: boolean, notice_version: string) =>
    request<void>(`${of(id)}/consents`, { method: 'POST', token, body: { purpose, granted, notice_version } }),
  consents: (id: string, token: string) => request<ConsentEntry[]>(`${of(id)}/consents`, { token }),
  interview: (id: string, token: string) => request<Interview>(of(id), { token }),
  transcript: (id: string, token: string) => request<Transcript>(`${of(id)}/transcript`, { token }),
  end: (id: string, token: string) => request<void>(`${of(id)}/end`, { method: 'POST', token }),
};
