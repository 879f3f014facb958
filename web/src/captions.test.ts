import { describe, expect, it } from 'vitest';
import { reduceCaptions, type Caption, type CaptionUpdate } from './captions';

const update = (change: Partial<CaptionUpdate>): CaptionUpdate => ({
  segment: 's1',
  stream: 'a',
  identity: 'ana',
  text: 'hello',
  final: false,
  ...change,
});
const run = (...updates: Partial<CaptionUpdate>[]) =>
  updates.reduce<Caption[]>((captions, u) => reduceCaptions(captions, update(u)), []);

describe('captions', () => {
  it('replaces the interim texts of a segment by the final one', () => {
    const captions = run(
      { stream: 'a', text: 'hello' },
      { stream: 'b', text: 'hello wor' },
      { stream: 'c', text: 'Hello, world.', final: true },
    );
    expect(captions).toEqual([{ segment: 's1', stream: 'c', identity: 'ana', text: 'Hello, world.', final: true }]);
  });

  it('lets one stream grow, final by its trailer', () => {
    const captions = run({ text: 'What ' }, { text: 'What is' }, { text: 'What is', final: true });
    expect(captions.map((c) => [c.text, c.final])).toEqual([['What is', true]]);
  });

  it('ignores an interim text that arrives behind the final one', () => {
    const captions = run({ stream: 'b', text: 'Hello.', final: true }, { stream: 'a', text: 'hel' });
    expect(captions[0]?.text).toBe('Hello.');
  });

  it('takes away what in the end was not heard at all, but not what has only begun', () => {
    expect(run({ text: 'Hello' }, { stream: 'b', text: '', final: true })).toEqual([]);
    expect(run({ text: 'Hello' }, { stream: 'b', text: '' })[0]?.text).toBe('Hello');
  });

  it('takes the shorter text of an interrupted sentence', () => {
    const captions = run({ text: 'What is your greatest' }, { stream: 'b', text: 'What is your', final: true });
    expect(captions[0]?.text).toBe('What is your');
  });

  it('keeps people apart and in the order in which they began', () => {
    const captions = run(
      { identity: 'ana', segment: '1', text: 'one' },
      { identity: 'ai', segment: '1', text: 'two' },
      { identity: 'ana', segment: '1', text: 'one more', stream: 'b' },
    );
    expect(captions.map((c) => c.text)).toEqual(['one more', 'two']);
  });

  it('shows no empty lines and gives back the same list when nothing changed', () => {
    expect(run({ text: '  ' })).toEqual([]);
    const before = run({ text: 'same' });
    expect(reduceCaptions(before, update({ text: 'same' }))).toBe(before);
  });

  it('is bounded', () => {
    const captions = run(...Array.from({ length: 400 }, (_, i) => ({ segment: `s${i}`, text: `line ${i}` })));
    expect(captions).toHaveLength(300);
    expect(captions.at(-1)?.text).toBe('line 399');
  });
});
