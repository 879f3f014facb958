// The tools that the stories stand on: an ear that hears nothing where nothing is said would make every story lie.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { common, compare, likeness, readWav, stretches } from '../lib/sound.mjs';
import { hear, hearPhrases, plain, speak } from '../lib/speech.mjs';
import { ANSWERS, QUESTIONS, SENTENCES } from '../lib/story.mjs';
import { API_KEY, transcriber } from '../lib/transcriber.mjs';

describe('the transcription endpoint', () => {
  let ear;
  before(async () => (ear = await transcriber('tools', SENTENCES)));
  after(() => ear?.stop());

  async function ask(wav, { key = API_KEY } = {}) {
    const form = new FormData();
    form.set('model', 'story');
    form.set('file', new Blob([readFileSync(wav)]), 'speech.wav');
    const headers = { authorization: `Bearer ${key}` };
    const response = await fetch(`${ear.url}/v1/audio/transcriptions`, { method: 'POST', headers, body: form });
    return { status: response.status, ...(await response.json()) };
  }

  test('hears every answer of the story', async () => {
    for (const answer of SENTENCES) assert.equal((await ask(await speak([0.3, answer, 0.3]))).text, answer);
  });

  test('hears no words in silence', async () => {
    assert.equal((await ask(await speak([2]))).text, '');
  });

  test('hears no words in what the interviewer says', async () => {
    for (const words of [...Object.values(QUESTIONS), 'Hello Ada. I am Robin. I ask you three questions.']) {
      assert.equal((await ask(await speak([0.3, words, 0.3], { voice: 'en-us' }))).text, '', words);
    }
  });

  test('refuses a wrong key', async () => {
    assert.equal((await ask(await speak([1]), { key: 'wrong' })).status, 401);
  });
});

test('the ear tells the questions apart in one recording', async () => {
  const { project, hardest } = QUESTIONS;
  const wav = await speak([0.5, 'Hello Ada. I am Robin.', 0.3, project, 1, 'Thank you.', 0.3, hardest, 0.5], { voice: 'en-us' });
  const heard = (await hearPhrases(wav, Object.values(QUESTIONS))).map((p) => p.text).filter(Boolean);
  assert.deepEqual(heard, [project, hardest].map(plain));
  assert.equal((await hear(await speak([0.3, ANSWERS.part], {}), Object.values(QUESTIONS))).text, '');
});

test('what was received is told from what was not', async () => {
  const [one, other] = [readWav(await speak([0.4, ANSWERS.part])), readWav(await speak([0.4, ANSWERS.hardest]))];
  assert.ok(likeness(compare(one, one)).share === 1);
  assert.ok(likeness(compare(one, other)).share < 0.2, 'two different sentences are not alike');
  const [stretch] = stretches(one);
  assert.ok(Math.abs(stretch.start - 0.4) < 0.1, `speech begins at ${stretch.start}`);
  assert.equal(common([1, 2, 3, 4], [2, 9, 4]), 2);
});
