// The story again with the engines themselves: whisper.cpp hears (a rigged model, which understands one sentence in any
// sound) and a Piper voice speaks (made of tones, one a phoneme), so that neither needs a download.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { launch, openPage } from '../lib/browser.mjs';
import { answer, interviewerPlayed, said, storedTranscript } from '../lib/interview.mjs';
import { must } from '../lib/process.mjs';
import { output, TOOLS, VENV_PYTHON } from '../lib/paths.mjs';
import { serve } from '../lib/server.mjs';
import { common, tones } from '../lib/sound.mjs';
import { plain } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, ONE_PLAN, QUESTIONS } from '../lib/story.mjs';
import { captionOf, practice, transcriptOpens } from '../lib/visit.mjs';

/** The tones of the voice, Hz. */
const SCALE = Array.from({ length: 20 }, (_, step) => 150 + 25 * step);
/** What the rigged model understands, whatever it is given. */
const UNDERSTOOD = 'the model itself heard this sentence about databases';

describe('an interview with whisper and a Piper voice', () => {
  let server, browser, page, call, voice;

  const step = steps('engines', () => ({ server, page }));
  before(async () => {
    const models = output('e2e', 'models');
    const whisper = join(models, 'rigged.bin');
    voice = join(models, 'tones.onnx');
    await must(VENV_PYTHON, [join(TOOLS, 'make_whisper_model.py'), whisper, '--text', UNDERSTOOD, '--state', '16', '--head', '1']);
    await must(VENV_PYTHON, [join(TOOLS, 'make_piper_voice.py'), voice]);
    server = await serve('engines', {
      speech: { stt: { provider: 'whisper', model: whisper, timeout_ms: 30_000 }, tts: { provider: 'piper', voice } },
    });
    browser = await launch();
    page = await openPage(browser);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  step('the server says which voice it has', async () => {
    const practice = await server.get('/v1/practice');
    assert.equal(practice.voice, 'piper');
    assert.equal(practice.recognition, true);
  });

  step('the interview goes to its end', async () => {
    call = await practice(page, server, { plan: ONE_PLAN });
    await answer(page, ANSWERS.part);
    await captionOf(page, call.identity, UNDERSTOOD);
    await transcriptOpens(page);
  });

  step('what whisper understood is what was kept', async () => {
    const lines = await storedTranscript(server, call);
    assert.deepEqual(said(lines, 'interviewee'), [plain(UNDERSTOOD)]);
  });

  step('the browser played the tones of the question’s phonemes', async () => {
    const sound = await interviewerPlayed(page, 'engines');
    const wanted = await pitches(QUESTIONS.project);
    const heard = tones(sound, SCALE);
    const found = common(wanted, heard);
    console.log(`    ${found} of ${wanted.length} phonemes of the question were heard in ${heard.length} tones`);
    assert.ok(found >= 0.95 * wanted.length, `${found} of ${wanted.length}; heard ${heard.join(' ')}; wanted ${wanted.join(' ')}`);
    // The order must be the question's, not any: the same phonemes backwards are not found.
    assert.ok(common([...wanted].reverse(), heard) < 0.8 * wanted.length);
  });

  step('the page had no errors', () => assert.deepEqual(page.faults, []));

  /** The pitch of every phoneme, as the voice is made: by its id modulo 20. */
  async function pitches(sentence) {
    const ids = JSON.parse(readFileSync(`${voice}.json`)).phoneme_id_map;
    const ipa = (await must('espeak-ng', ['-q', '--ipa', '-v', 'en-us', sentence])).toString();
    return [...ipa]
      .map((phoneme) => ids[phoneme]?.[0] ?? 0)
      .filter((id) => id > 3)
      .map((id) => SCALE[id % 20]);
  }
});
