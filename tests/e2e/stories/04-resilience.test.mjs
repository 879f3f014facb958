// What breaks in real life: the socket, the server, a person who talks over the interviewer or hangs up in mid-word.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { arrivals } from '../lib/arrivals.mjs';
import { arrived, audioOf, launch, openPage, people, say } from '../lib/browser.mjs';
import { said, spoken, storedTranscript } from '../lib/interview.mjs';
import { relay } from '../lib/proxy.mjs';
import { serve } from '../lib/server.mjs';
import { plain, speak } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, INTERVIEWER, ONE_PLAN, QUESTIONS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { transcriber } from '../lib/transcriber.mjs';
import { interviewerIs, live, practice, ring, transcriptLines } from '../lib/visit.mjs';
import { sleep, until } from '../lib/wait.mjs';

/** From the decision to the last packet at the receiver. */
const BARGE_IN_MS = 60;

describe('resilience', () => {
  let ear, server, line, browser, page, call;

  const step = steps('resilience', () => ({ server, page }));
  before(async () => {
    // Whole sentences or their beginnings: who hangs up in mid-word has said the words before.
    ear = await transcriber('resilience', SENTENCES, { prefixes: true });
    server = await serve('resilience', { speech: { stt: ear.config } });
    line = await relay(server.port);
    browser = await launch();
    page = await openPage(browser, { packets: true });
    call = await practice(page, { base: line.base }, { plan: SHORT_PLAN });
  });
  after(async () => {
    await browser?.close();
    line?.stop();
    await server?.stop();
    await ear?.stop();
  });

  step('a talk over the interviewer stops its voice at once', async () => {
    await until('the interviewer to speak', async () => (await ring(page)) === 'speaking');
    await sleep(1500);
    assert.equal(await ring(page), 'speaking');
    await say(page, await spoken(ANSWERS.short));
    const decision = await until('the decision in the log', () =>
      server.events().find((e) => /barge/i.test(JSON.stringify(e))),
    );
    const decided = Date.parse(decision.timestamp) + Number(`0.${decision.timestamp.match(/\.\d{3}(\d*)/)?.[1] || 0}`);
    const packets = arrivals(await arrived(page, await audioOf(page, INTERVIEWER)));
    const last = packets.filter((p) => p.at < decided + 1000).at(-1);
    console.log(`    last packet ${(last.at - decided).toFixed(1)} ms after the decision`);
    assert.ok(last.at - decided <= BARGE_IN_MS, `last packet ${(last.at - decided).toFixed(1)} ms after the decision`);
    assert.ok(packets.length > 40, 'the interviewer had been speaking');
    assert.equal(await server.metric('viva_barge_ins_total'), 1);
  });

  step('of what was cut off, only the words that were played are kept', async () => {
    await interviewerIs(page, 'listening');
    const lines = await storedTranscript(server, call);
    const cut = lines.find((l) => l.role === 'ai' && l.interrupted);
    assert.ok(cut, 'the line says that it was interrupted');
    const whole = plain(`Hello Ada. I am Robin. I ask you three questions. ${QUESTIONS.project}`);
    assert.ok(whole.startsWith(plain(cut.text)) && plain(cut.text).length < whole.length, cut.text);
    const { turns } = await server.get(`/v1/interviews/${call.id}/turns`, call.token);
    assert.ok(turns.some((t) => t.interrupted));
  });

  step('a cut socket resumes: same place, same participant, the call goes on', async () => {
    const before = await people(page);
    const { resumes, joins } = await page.evaluate(() => ({ resumes: window.viva.resumes, joins: window.viva.joins }));
    line.cut();
    await until('the page to resume', () => page.evaluate((n) => window.viva.resumes > n, resumes));
    await live(page);
    assert.equal(await page.evaluate(() => window.viva.joins), joins, 'it did not join anew');
    const own = (list) => list.filter((p) => p.identity === call.identity).map((p) => p.sid);
    assert.deepEqual(own(await people(page)), own(before));
    // Sound flows both ways: the interviewer hears, and is heard.
    const heard = (await arrived(page, await audioOf(page, INTERVIEWER))).length;
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Repeat the question' }).click();
    await until('the interviewer to be heard again', async () => (await arrived(page, await audioOf(page, INTERVIEWER))).length > heard + 20);
    await interviewerIs(page, 'listening');
  });

  step('who hangs up in mid-word loses no word that was recognised', async () => {
    const before = (await ear.log()).length;
    void say(page, await spoken(ANSWERS.hardest)).catch(() => {});
    // "the hardest part was keeping the old and the …" takes some 3 s.
    await sleep(2600);
    await page.getByRole('button', { name: 'Leave' }).click();
    await page.waitForURL('**/transcript/**');
    const request = await until('the last words to be recognised', async () => (await ear.log())[before], { timeout: 60_000 });
    assert.ok(ANSWERS.hardest.startsWith(request.text) && request.text.split(' ').length >= 4, `heard: "${request.text}"`);
    await until('the words to be kept', async () =>
      said(await storedTranscript(server, call), 'interviewee').join(' ').endsWith(request.text),
    );
  });

  step('ended, its transcript stays over a restart; who is in a call comes back by itself', async () => {
    await page.reload();
    await page.getByRole('button', { name: 'End it now' }).click();
    await until('the end', async () => (await server.get(`/v1/interviews/${call.id}`, call.token)).state === 'ended');
    const kept = await storedTranscript(server, call);
    assert.ok(kept.length >= 3);

    const other = await openPage(browser);
    const second = await practice(other, server, { plan: ONE_PLAN, name: 'Zoë' });
    await interviewerIs(other, 'listening');
    const joins = await other.evaluate(() => window.viva.joins);
    await server.restart();
    await until('the page to join anew', () => other.evaluate((n) => window.viva.joins > n, joins), { timeout: 60_000 });
    await live(other);
    const own = (await people(other)).filter((p) => p.identity === second.identity);
    assert.ok(own.length >= 2, 'a full reconnect gives a new participant');
    await interviewerIs(other, 'listening', { timeout: 60_000 });

    assert.deepEqual(await storedTranscript(server, call), kept);
    await page.reload();
    await page.getByTestId('transcript').waitFor();
    assert.equal((await transcriptLines(page)).length, kept.length);
  });
});
