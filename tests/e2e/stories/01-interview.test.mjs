// A whole interview in a browser whose microphone is spoken WAVs: the words come from the audio, both ways.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe } from 'node:test';
import { launch, openPage, say } from '../lib/browser.mjs';
import { interviewerPlayed, inOrder, said, storedTranscript } from '../lib/interview.mjs';
import { SECRET, serve } from '../lib/server.mjs';
import { hearPhrases, plain, speak } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, INTERVIEWER, QUESTIONS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { API_KEY, transcriber } from '../lib/transcriber.mjs';
import { captionOf, captions, interviewerIs, practice, question, transcriptOpens } from '../lib/visit.mjs';
import { until } from '../lib/wait.mjs';

describe('an interview by voice', () => {
  let ear, server, browser, page, call;
  const seen = [];

  const step = steps('interview', () => ({ server, page }));
  before(async () => {
    ear = await transcriber('interview', SENTENCES);
    server = await serve('interview', { speech: { stt: ear.config } });
    browser = await launch();
    page = await openPage(browser, { microphone: 'cue' });
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    await ear?.stop();
  });

  step('the interviewee comes in through the page', async () => {
    call = await practice(page, server, { plan: SHORT_PLAN });
    assert.equal(call.role, 'interviewee');
  });

  const answers = [ANSWERS.short, ANSWERS.part, ANSWERS.hardest, ANSWERS.again];

  /** As people do: speaks when it is their turn, and once more where a busy machine's stutter left nothing to understand. */
  async function speaks() {
    for (const words of answers) {
      for (let tries = 0; tries < 3; tries++) {
        await interviewerIs(page, 'listening', { timeout: 90_000 });
        await say(page, await speak([0.3, words, 0.3]));
        const heard = await captionOf(page, call.identity, words, { timeout: 12_000 }).catch(() => undefined);
        if (heard) break;
      }
    }
  }

  step('the interviewer greets, asks, follows up a short answer and goes on to the end', async () => {
    const asked = new Set();
    // What goes wrong in it shows below: the interview does not come to its end, or lacks words.
    void speaks().catch((error) => console.log(`    the interviewee fell silent: ${error.message}`));
    await until(
      'the interview to end',
      async () => {
        if (page.url().includes('/transcript/')) return true;
        const now = await question(page).catch(() => undefined);
        if (now?.progress && !asked.has(now.progress)) {
          asked.add(now.progress);
          seen.push(now);
        }
        seen.captions = await captions(page).then((list) => (list.length ? list : seen.captions), () => seen.captions);
        return false;
      },
      { timeout: 150_000, every: 200 },
    );
    assert.deepEqual(seen.map((s) => s.progress), ['1 of 3', '2 of 3', '3 of 3']);
    assert.equal(seen[0].question, QUESTIONS.project);
    assert.equal(seen[2].question, QUESTIONS.again);
  });

  step('what the browser played are the plan’s questions', async () => {
    const { path } = await interviewerPlayed(page, 'interview');
    const heard = (await hearPhrases(path, Object.values(QUESTIONS))).map((p) => p.text).filter(Boolean);
    const { project, probe, hardest, again } = QUESTIONS;
    assert.deepEqual(heard, [project, probe, hardest, again].map(plain));
  });

  step('captions show what both said', () => {
    const own = seen.captions.filter((c) => c.identity === call.identity && c.final).map((c) => plain(c.text));
    assert.deepEqual(own, answers);
    const ai = seen.captions.filter((c) => c.identity === INTERVIEWER).map((c) => plain(c.text));
    assert.ok(inOrder(ai, [QUESTIONS.project, QUESTIONS.probe, QUESTIONS.hardest, QUESTIONS.again].map(plain)), ai.join(' | '));
  });

  step('the transcript opens, and page, REST and SQLite hold the same words', async () => {
    const onPage = await transcriptOpens(page);
    const lines = await storedTranscript(server, call);
    assert.deepEqual(said(lines, 'interviewee'), answers);
    assert.ok(inOrder(said(lines, 'ai'), [QUESTIONS.project, QUESTIONS.probe, QUESTIONS.hardest, QUESTIONS.again].map(plain)));
    assert.deepEqual(onPage.map((l) => [l.role, l.text]), lines.map((l) => [l.role, l.text]));
    const interview = await server.get(`/v1/interviews/${call.id}`, call.token);
    assert.equal(interview.state, 'ended');
    assert.equal(interview.end_reason, 'completed');
    assert.equal(interview.questions_asked, 3);
  });

  step('no word came from silence or from the interviewer’s own voice', async () => {
    const requests = await ear.log();
    assert.deepEqual(requests.map((r) => r.text).filter(Boolean), answers);
  });

  step('consents are on record, and the metrics count what happened', async () => {
    const consents = await server.sql(`select purpose, granted from consents where interview = '${call.id}' order by purpose`);
    assert.deepEqual(consents, [
      { purpose: 'ai_interviewer', granted: 1 },
      { purpose: 'transcription', granted: 1 },
    ]);
    const metrics = await server.metrics();
    assert.ok(metrics.get('viva_response_latency_seconds_count') >= answers.length);
    assert.ok(metrics.get('viva_tap_packets_total') > 500);
    assert.equal(metrics.get('viva_turns_total{act="probe"}'), 1);
    assert.equal(metrics.get('viva_interviews_total{result="completed"}'), 1);
  });

  step('neither the log nor the metrics hold names, words, identities or secrets', async () => {
    const written = [readFileSync(server.log, 'utf8'), await (await fetch(`${server.base}/metrics`)).text()];
    const invite = new URL(server.base + call.invitePath).searchParams.get('invite');
    const secrets = ['Ada', call.identity, call.token, invite, SECRET, API_KEY, ...answers, QUESTIONS.project];
    for (const text of written) {
      assert.ok(text.length > 1000);
      for (const secret of secrets) {
        const words = new RegExp(`\\b${secret.replace(/[^\w ]/g, '\\$&')}`, 'i');
        assert.doesNotMatch(text, words);
      }
    }
  });

  step('the page had no errors', () => assert.deepEqual(page.faults, []));
});
