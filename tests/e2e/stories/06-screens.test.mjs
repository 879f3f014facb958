// Every screen at the three sizes, light and dark, in `test-output/screens`; and that nothing sticks out sideways, that a
// keyboard alone gets through, and what a person hears about a server that does not recognise speech.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { COLOURS, launch, openPage, say } from '../lib/browser.mjs';
import { spoken, storedTranscript } from '../lib/interview.mjs';
import { shoot } from '../lib/screens.mjs';
import { serve } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { transcriber } from '../lib/transcriber.mjs';
import { accept, captionOf, choosePractice, interviewerIs, inviteLink, join, practice, ring, transcriptOpens } from '../lib/visit.mjs';
import { until } from '../lib/wait.mjs';

/** The longest name that a tile must bear. */
const LONG_NAME = 'Maximiliana Konstantinopoulou-Featherstonehaugh von Hohenstaufen';

describe('screens', () => {
  let ear, server, silent, page, guest, call;
  const browsers = [];
  const step = steps('screens', () => ({ server, page, guest }));
  before(async () => {
    ear = await transcriber('screens', SENTENCES);
    server = await serve('screens', { speech: { stt: ear.config } });
    silent = await serve('screens-no-recognition');
    browsers.push(await launch({ colour: COLOURS.ada }));
    page = await openPage(browsers[0]);
  });
  after(async () => {
    for (const browser of browsers) await browser.close();
    await server?.stop();
    await silent?.stop();
    await ear?.stop();
  });

  step('start', async () => {
    await page.goto(server.base);
    await page.getByLabel('Your name').waitFor();
    await shoot(page, '1-start', { full: true });
    await page.getByRole('button', { name: 'Continue to the ready check' }).click();
    await page.getByText('Type your name.').waitFor();
    await shoot(page, '1-start-incomplete', { full: true });
  });

  step('ready check', async () => {
    await choosePractice(page, server, { plan: SHORT_PLAN, name: LONG_NAME });
    await page.getByLabel('Your camera').waitFor();
    await shoot(page, '2-ready', { full: true });
  });

  step('room', async () => {
    call = await join(page);
    await until('the interviewer to speak', async () => (await ring(page)) === 'speaking', { every: 20 });
    await shoot(page, '3-room-speaking');
    await interviewerIs(page, 'listening');
    await shoot(page, '3-room-listening');
    await say(page, await spoken(ANSWERS.part));
    await captionOf(page, call.identity, ANSWERS.part);
    await interviewerIs(page, 'listening');
    await page.getByRole('button', { name: "I'm thinking" }).click();
    await interviewerIs(page, 'waiting');
    await shoot(page, '3-room-thinking-time');
  });

  step('room with captions at their largest', async () => {
    await page.getByRole('button', { name: 'More' }).click();
    const larger = page.getByRole('button', { name: 'Larger captions' });
    while (await larger.isEnabled()) await larger.click();
    await shoot(page, '3-room-more');
    await page.getByRole('button', { name: 'Close' }).click();
    await shoot(page, '3-room-large-captions');
    await page.getByRole('button', { name: 'AI interviewer' }).click();
    await shoot(page, '3-room-consent');
    await page.getByRole('button', { name: 'Close' }).click();
  });

  step('join by link, and a room of two people', async () => {
    const link = await inviteLink(page);
    browsers.push(await launch({ colour: COLOURS.grace }));
    guest = await openPage(browsers[1]);
    await guest.goto(link);
    await guest.getByLabel('Your name').waitFor();
    await shoot(guest, '4-join', { full: true });
    await accept(guest, link, { name: LONG_NAME });
    await until('the picture of the other', async () =>
      (await guest.evaluate(() => window.viva.pictures())).some((p) => p.identity === call.identity && p.width > 0),
    );
    await shoot(guest, '5-room-two-guest');
    await shoot(page, '5-room-two');
    await guest.context().close();
  });

  step('end and transcript', async () => {
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'End the interview' }).click();
    await page.getByRole('button', { name: 'End it for everybody' }).click();
    const lines = await transcriptOpens(page);
    assert.equal(lines.length, (await storedTranscript(server, call)).length);
    await shoot(page, '6-transcript', { full: true });
  });

  step('problems', async () => {
    await page.goto(`${server.base}/join/${call.id}?invite=wrong`);
    await page.getByTestId('problem').waitFor();
    await shoot(page, '7-problem-link');
    await page.goto(`${server.base}/no/such/page`);
    await page.getByTestId('problem').waitFor();
    await shoot(page, '7-problem-address');
  });

  step('without recognition the interviewer takes turns by the voice alone, and the page says so', async () => {
    const other = await openPage(browsers[0]);
    const place = await practice(other, silent, { plan: SHORT_PLAN });
    await other.getByTestId('recognition-off').waitFor();
    await other.getByRole('button', { name: 'Not transcribed' }).waitFor();
    await interviewerIs(other, 'listening');
    await say(other, await spoken(ANSWERS.part));
    await until('the next question', async () => (await other.getByTestId('progress').innerText()) === '2 of 3');
    await shoot(other, '8-recognition-off');
    const lines = await storedTranscript(silent, place);
    assert.ok(lines.length > 0 && lines.every((l) => l.role === 'ai' || l.text === ''), 'nobody invents words');
    await other.context().close();
  });

  step('by the keyboard alone', async () => {
    const other = await openPage(browsers[0]);
    await other.goto(server.base);
    await other.getByLabel('Your name').waitFor();
    const focus = () => other.evaluate(() => document.activeElement?.textContent || document.activeElement?.getAttribute('name') || '');
    const seen = [];
    for (let i = 0; i < 16 && !seen.includes('Continue to the ready check'); i++) {
      await other.keyboard.press('Tab');
      seen.push(await focus());
    }
    assert.ok(seen.includes('Continue to the ready check'), seen.join(' | '));
    await shoot(other, '1-start-focus');
    await other.context().close();
  });
});
