import { DisconnectReason } from 'livekit-client';
import { describe, expect, it } from 'vitest';
import { latest } from './consent';
import { failureOfConnect, failureOfDisconnect } from './failures';
import { clock, initials, transcriptText } from './format';
import { faultOf, faultSentence, loudness } from './media';
import { stepCaptionSize } from './prefs';
import { route } from './router';
import { signalUrl } from './session';

describe('consents', () => {
  it('counts the latest of each purpose, whatever the order', () => {
    expect(
      latest([
        { purpose: 'transcription', granted: false, at_ms: 9 },
        { purpose: 'ai_interviewer', granted: true, at_ms: 1 },
        { purpose: 'transcription', granted: true, at_ms: 2 },
      ]),
    ).toEqual({ ai_interviewer: true, transcription: false });
  });
  it('assumes nothing', () => expect(latest([])).toEqual({ ai_interviewer: false, transcription: false }));
});

it('finds the page of an address', () => {
  expect(route('/')).toEqual({ page: 'start' });
  expect(route('/ready')).toEqual({ page: 'ready' });
  expect(route('/room/01ABC')).toEqual({ page: 'room', id: '01ABC' });
  expect(route('/join/a%20b/')).toEqual({ page: 'join', id: 'a b' });
  expect(route('/room')).toEqual({ page: 'unknown' });
  expect(route('/room/%zz')).toEqual({ page: 'unknown' });
  expect(route('/transcript/1/2')).toEqual({ page: 'unknown' });
});

it('asks for the signal at this origin unless told otherwise', () => {
  expect(signalUrl('', { protocol: 'https:', host: 'a.example' })).toBe('wss://a.example');
  expect(signalUrl('', { protocol: 'http:', host: 'localhost:7880' })).toBe('ws://localhost:7880');
  expect(signalUrl('wss://b.example', { protocol: 'http:', host: 'x' })).toBe('wss://b.example');
});

it('writes times and names', () => {
  expect([0, 59_999, 60_000, 3_661_000, -5].map(clock)).toEqual(['0:00', '0:59', '1:00', '1:01:01', '0:00']);
  expect(initials('Ana Maria de Souza')).toBe('AS');
  expect(initials('ångström')).toBe('Å');
  expect(initials('  ')).toBe('?');
});

it('writes the transcript as text', () => {
  const line = { identity: 'x', role: 'ai' as const, end_ms: 0 };
  const text = transcriptText(
    {
      interview: { started_at_ms: null } as never,
      lines: [
        { ...line, seq: 0, name: 'Mara', start_ms: 1000, text: 'Hello.', interrupted: false },
        { ...line, seq: 1, name: 'Mara', start_ms: 61_000, text: 'What is', interrupted: true },
      ],
    },
    'Backend engineer',
  );
  expect(text).toBe('Backend engineer\n\n[0:01] Mara: Hello.\n[1:01] Mara: What is …\n');
});

describe('devices', () => {
  it('says what is wrong in the words of the design', () => {
    const denied = Object.assign(new Error(), { name: 'NotAllowedError' });
    expect(faultSentence('microphone', faultOf(denied))).toBe(
      'Your browser is not allowed to use the microphone. Allow it in the address bar, then press Try again.',
    );
    expect(faultOf(Object.assign(new Error(), { name: 'NotFoundError' }))).toBe('missing');
    expect(faultOf('?')).toBe('busy');
  });
  it('measures loudness', () => {
    expect(loudness(0)).toBe(0);
    expect(loudness(1)).toBe(1);
    expect(loudness(10 ** (-35 / 20))).toBeCloseTo(0.5);
  });
});

it('steps the size of captions and stops at both ends', () => {
  expect(stepCaptionSize(21, 1)).toBe(28);
  expect(stepCaptionSize(38, 1)).toBe(38);
  expect(stepCaptionSize(17, -1)).toBe(17);
});

describe('why a call broke off', () => {
  it('has one next step for each reason', () => {
    expect(failureOfDisconnect(DisconnectReason.CLIENT_INITIATED)).toBeUndefined();
    expect(failureOfDisconnect(DisconnectReason.DUPLICATE_IDENTITY)?.next).toBe('takeover');
    expect(failureOfDisconnect(DisconnectReason.ROOM_DELETED)?.next).toBe('transcript');
    expect(failureOfDisconnect(DisconnectReason.SERVER_SHUTDOWN)?.next).toBe('retry');
    expect(failureOfDisconnect(undefined)?.next).toBe('retry');
  });
  it('does not fall over an unknown error', () => {
    expect(failureOfConnect(new Error('boom'))).toMatchObject({ next: 'retry', details: 'boom' });
  });
});
