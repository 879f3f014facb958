// LiveKit's React components, unmodified, with our interviewer: an integrator's page that was made for voice agents.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { audioOf, launch, openPage, played, say } from '../lib/browser.mjs';
import { integratorsPage } from '../lib/integrator.mjs';
import { storedTranscript } from '../lib/interview.mjs';
import { output, ROOT } from '../lib/paths.mjs';
import { serve } from '../lib/server.mjs';
import { levels, LOUD } from '../lib/sound.mjs';
import { plain, speak } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, INTERVIEWER, QUESTIONS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { transcriber } from '../lib/transcriber.mjs';
import { until } from '../lib/wait.mjs';

describe('an integrator’s page of React components', () => {
  let ear, server, site, browser, page, made;
  const step = steps('components', () => ({ server, page }));
  const shown = () => page.evaluate(() => window.shown);
  const shows = (what, look, options) =>
    until(what, async () => {
      const now = await shown();
      return now && look(now) ? now : undefined;
    }, { timeout: 60_000, every: 100, ...options });
  const text = (list) => plain(list.map((t) => t.text).join(' '));

  before(async () => {
    ear = await transcriber('components', SENTENCES);
    server = await serve('components', { speech: { stt: ear.config } });
    site = await integratorsPage();
    browser = await launch();
    page = await openPage(browser);
  });
  after(async () => {
    await browser?.close();
    site?.stop();
    await server?.stop();
    await ear?.stop();
  });

  // Later versions have dropped the hooks for voice agents; LiveKit's own pages still use them (trap T14).
  step('trap_14_the_components_are_the_last_version_with_the_agents_hooks', () => {
    const installed = join(ROOT, 'tests/e2e/node_modules/@livekit/components-react/package.json');
    assert.equal(JSON.parse(readFileSync(installed, 'utf8')).version, '2.9.24');
  });

  step('it joins, and finds the interviewer to be its voice assistant', async () => {
    const { plans, personas } = await server.get('/v1/practice');
    const plan = plans.find((p) => p.title === SHORT_PLAN).id;
    made = await server.post('/v1/interviews', { plan, persona: personas[0].id, name: 'Ada' });
    const place = new URLSearchParams({ url: server.base.replace('http', 'ws'), token: made.token });
    await page.goto(`${site.base}/#${place}`);
    // What it waits for it says once it knows of the microphone, which the page may know of before.
    const now = await shows('the assistant, the microphone, and what is waited for', ({ agent, voice, microphone, attributes }) =>
      agent && voice && microphone && attributes?.['viva.waiting'] === 'consent');
    assert.equal(now.agent.identity, INTERVIEWER);
  });

  step('what is written before anybody agreed is not read, and the page says why', async () => {
    await page.getByLabel('Message').fill('hello?');
    await page.getByRole('button', { name: 'Send' }).click();
    const { chat } = await shows('an answer in the chat', (now) => now.chat.length > 1);
    assert.deepEqual(chat.map((m) => m.message === 'hello?'), [true, false]);
    assert.equal(chat[1].identity, INTERVIEWER);
    assert.match(chat[1].message, /agree/i);
  });

  step('with consent the assistant speaks, and its states and words are the hooks’', async () => {
    const states = new Set();
    await page.getByRole('button', { name: /may listen/ }).click();
    const now = await shows('the first question', (now) => {
      states.add(now.state);
      return now.state === 'listening' && text(now.agentTranscriptions).includes(plain(QUESTIONS.project));
    });
    assert.ok(states.has('speaking'), [...states].join(' '));
    assert.ok(now.agentTranscriptions.at(-1).text.includes(QUESTIONS.project));
    const sound = await played(page, await audioOf(page, INTERVIEWER));
    assert.ok(levels(sound).filter((l) => l > LOUD).length > 100, 'more than a second of voice');
  });

  step('what is said is transcribed for the page as the interviewee’s', async () => {
    const own = (t) => t.identity === made.identity && t.attributes['lk.transcription_final'] === 'true';
    const goesOn = (now) => now.state === 'listening' && text(now.agentTranscriptions).includes(plain(QUESTIONS.hardest));
    // As people do: once more where a busy machine's pause in the middle was taken for the end.
    let now;
    for (let tries = 0; tries < 4 && !now; tries++) {
      await shows('the assistant to listen', ({ state }) => state === 'listening');
      await say(page, await speak([0.3, ANSWERS.part, 0.1, ANSWERS.steps, 0.3]));
      now = await shows('the second question', goesOn, { timeout: 12_000 }).catch(() => undefined);
    }
    assert.ok(now, JSON.stringify(await shown()));
    assert.ok(text(now.transcriptions.filter(own)).includes(ANSWERS.part), JSON.stringify(now.transcriptions));
  });

  step('an answer may be written, and the reply is spoken and stands in the chat', async () => {
    await page.getByLabel('Message').fill(ANSWERS.hardest);
    await page.getByRole('button', { name: 'Send' }).click();
    const now = await shows('the reply in the chat', ({ chat }) => plain(chat.at(-1).message).includes(plain(QUESTIONS.again)));
    assert.equal(now.chat.at(-1).identity, INTERVIEWER);
    assert.equal(now.chat.at(-2).message, ANSWERS.hardest);
    assert.ok(text(now.agentTranscriptions).includes(plain(QUESTIONS.again)));
    await page.screenshot({ path: join(output('e2e'), 'components.png') });
    const lines = await storedTranscript(server, made);
    assert.ok(lines.some((l) => l.role === 'interviewee' && l.text === ANSWERS.hardest));
    assert.ok(lines.every((l) => l.text !== 'hello?'));
  });

  step('the page had no errors', () => assert.deepEqual(page.faults, []));
});
