// A client that nobody here wrote is interviewed: the Python SDK, unmodified, with a browser in the same call.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { audioOf, COLOURS, launch, openPage, played, say } from '../lib/browser.mjs';
import { said, storedTranscript } from '../lib/interview.mjs';
import { start } from '../lib/process.mjs';
import { output, ROOT, VENV_PYTHON } from '../lib/paths.mjs';
import { serve } from '../lib/server.mjs';
import { levels, LOUD } from '../lib/sound.mjs';
import { plain, speak } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, INTERVIEWER, QUESTIONS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { transcriber } from '../lib/transcriber.mjs';
import { accept } from '../lib/visit.mjs';
import { Hopeless, until } from '../lib/wait.mjs';

describe('the Python SDK in an interview', () => {
  let ear, server, browser, page, made, guest, python, result;

  const step = steps('sdk', () => ({ server, page }));
  before(async () => {
    ear = await transcriber('sdk', SENTENCES);
    server = await serve('sdk', { rtc: { advertise_ips: [] }, speech: { stt: ear.config } });
    browser = await launch({ colour: COLOURS.grace });
    page = await openPage(browser);
    const { plans, personas } = await server.get('/v1/practice');
    const plan = plans.find((p) => p.title === SHORT_PLAN).id;
    made = await server.post('/v1/interviews', { plan, persona: personas[0].id, name: 'Py' });
    guest = await accept(page, server.base + made.invite_path, { listen: false });
  });
  after(async () => {
    await python?.stop();
    await browser?.close();
    await server?.stop();
    await ear?.stop();
  });

  step('it joins, speaks and listens', async () => {
    const invite = new URL(server.base + made.invite_path).searchParams.get('invite');
    const second = await server.post(`/v1/interviews/${made.id}/join`, { invite, name: 'Py two' });
    const wav = await speak([0.3, ANSWERS.part, 0.3, ANSWERS.steps, 0.3]);
    python = start(
      VENV_PYTHON,
      [
        join(ROOT, 'tests/interop/with_interviewer.py'),
        ...['--url', server.base.replace('http', 'ws'), '--token', made.token, '--guest-token', second.token],
        ...['--speech', wav, '--browser', guest.identity],
      ],
      { log: join(output('e2e'), 'sdk-python.log') },
    );
    // The browser talks too, so that there is something to hear of it.
    void say(page, await speak([4, ANSWERS.hardest, 1, ANSWERS.again])).catch(() => {});
    result = await until(
      'the client to end',
      () => {
        const line = python.text().split('\n').find((l) => l.startsWith('{"identity"'));
        if (line) return JSON.parse(line);
        if (python.ended()) throw new Hopeless(python.text());
        return undefined;
      },
      { timeout: 150_000 },
    );
    assert.equal(result.identity, made.identity);
  });

  step('it hears the interviewer, and hears and sees the browser', () => {
    assert.ok(result.audio[INTERVIEWER].loud > 100, JSON.stringify(result.audio));
    assert.ok(result.audio[guest.identity].frames > 100, JSON.stringify(result.audio));
    const picture = result.video[guest.identity];
    assert.ok(picture.frames > 15 && picture.width >= 320, JSON.stringify(picture));
    assert.ok(picture.colour.every((c, i) => Math.abs(c - COLOURS.grace[i]) < 30), JSON.stringify(picture));
  });

  step('the interviewer is an agent as the SDKs know them', () => {
    const { kind, name, attributes } = result.interviewer;
    assert.equal(kind, 4);
    assert.equal(name, 'Robin');
    assert.equal(attributes['viva.role'], 'ai');
    assert.equal(attributes['viva.recognition'], 'on');
    assert.ok(result.states.includes('speaking') && result.states.includes('thinking'), result.states.join(' '));
  });

  step('it reads the transcriptions of both sides', () => {
    const final = result.transcriptions.filter((t) => t['lk.transcription_final'] === 'true');
    const own = final.filter((t) => t.from === made.identity).map((t) => plain(t.text));
    assert.ok(own.join(' ').includes(ANSWERS.part), JSON.stringify(own));
    const ai = result.transcriptions.filter((t) => t.from === INTERVIEWER).map((t) => plain(t.text)).join(' ');
    assert.ok(ai.includes(plain(QUESTIONS.project)), ai);
    for (const t of result.transcriptions) {
      assert.ok(t['lk.segment_id'] && t['lk.transcribed_track_id']?.startsWith('TR_'), JSON.stringify(t));
    }
  });

  step('text and calls go both ways, and the interviewer answers calls', () => {
    assert.deepEqual(result.answers, ['cba', 'zyx']);
    assert.ok(result.texts.some(([, , length]) => length > 40_000), JSON.stringify(result.texts));
    assert.deepEqual(Object.values(result.consent).map((c) => JSON.parse(c).ok), [true, true]);
    assert.equal(result.refusals['viva.nonsense'].code, 1400);
    assert.ok(result.refusals['viva.consent'].message.length > 10, JSON.stringify(result.refusals));
  });

  step('the browser hears the SDK’s client', async () => {
    const sound = await played(page, await audioOf(page, made.identity));
    assert.ok(levels(sound).filter((l) => l > LOUD).length > 200, 'two seconds of speech and more');
  });

  step('its words are kept', async () => {
    const lines = await storedTranscript(server, made);
    assert.ok(said(lines, 'interviewee').join(' ').includes(ANSWERS.part));
  });
});
