import { describe, expect, it } from 'vitest';
import { parseProgress, readAttributes, ringState } from './interviewer';

describe('progress', () => {
  it('reads what the interviewer says', () => {
    expect(parseProgress('{"asked":2,"total":6,"id":"q2","question":" Why? "}')).toEqual({
      asked: 2,
      total: 6,
      question: 'Why?',
    });
  });

  it.each([undefined, '', 'null', '3', '{', '{"asked":1}', '{"asked":-1,"total":6}', '{"asked":1,"total":0}', '{"asked":1.5,"total":2}'])(
    'shows nothing for %s',
    (text) => expect(parseProgress(text)).toBeUndefined(),
  );

  it('never counts above the total, and lives without a question', () => {
    expect(parseProgress('{"asked":9,"total":6}')).toEqual({ asked: 6, total: 6, question: '' });
  });
});

describe('the ring', () => {
  const state = (attributes: Record<string, string>, microphoneOn = true) => ringState(attributes, microphoneOn);
  it('follows the state', () => {
    expect(ringState(undefined, true)).toBe('joining');
    expect(state({ 'lk.agent.state': 'initializing' })).toBe('joining');
    expect(state({ 'lk.agent.state': 'listening' })).toBe('listening');
    expect(state({ 'lk.agent.state': 'thinking' })).toBe('thinking');
    expect(state({ 'lk.agent.state': 'speaking' })).toBe('speaking');
    expect(state({ 'lk.agent.state': 'idle' })).toBe('resting');
  });
  it('waits when time to think was asked for, or nobody could be heard', () => {
    expect(state({ 'lk.agent.state': 'listening', 'viva.hold': '1' })).toBe('waiting');
    expect(state({ 'lk.agent.state': 'listening' }, false)).toBe('waiting');
  });
  it('rests without consent and at the end, but its own voice comes first', () => {
    expect(state({ 'lk.agent.state': 'listening', 'viva.waiting': 'consent' })).toBe('resting');
    expect(state({ 'lk.agent.state': 'listening', 'viva.ended': 'completed' })).toBe('resting');
    expect(state({ 'lk.agent.state': 'speaking', 'viva.hold': '1' })).toBe('speaking');
  });
});

it('takes an unknown word about recognition for "on", and no participant for "not here"', () => {
  expect(readAttributes({ 'viva.recognition': 'off' }).recognition).toBe('off');
  expect(readAttributes({ 'viva.recognition': 'maybe' }).recognition).toBe('on');
  expect(readAttributes(undefined).present).toBe(false);
});
