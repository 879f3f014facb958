// Two people in one call: they see and hear each other; the interviewer hears only who allowed it; and the time that
// the server says a reply took is the gap that a third ear measures.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { arrived, audioOf, COLOURS, launch, openPage, played, say } from '../lib/browser.mjs';
import { answer, said, storedTranscript } from '../lib/interview.mjs';
import { arrivals, burstStarts, lastLoudBefore } from '../lib/arrivals.mjs';
import { output } from '../lib/paths.mjs';
import { serve } from '../lib/server.mjs';
import { compare, likeness, readWav, writeWav } from '../lib/sound.mjs';
import { speak } from '../lib/speech.mjs';
import { steps } from '../lib/steps.mjs';
import { ANSWERS, SENTENCES, SHORT_PLAN } from '../lib/story.mjs';
import { transcriber } from '../lib/transcriber.mjs';
import { accept, interviewerIs, inviteLink, practice, ring } from '../lib/visit.mjs';
import { sleep, until } from '../lib/wait.mjs';

const TAP = 'viva_tap_packets_total';
/** What the two tell each other; longer than any answer, so that there are windows enough. */
const STORY = {
  ada: ['last year i led the migration of our billing service', 0.4, 'we moved the traffic in small steps and measured every step'],
  grace: ['the hardest part was keeping the old and the new database equal', 0.4, 'next time i would write the rollback plan first'],
};

describe('two people and the interviewer', () => {
  let ear, server, ada, grace, adasCall, gracesCall;
  const browsers = [];

  const step = steps('two-people', () => ({ ada, grace }));
  before(async () => {
    ear = await transcriber('two-people', SENTENCES);
    server = await serve('two-people', { speech: { stt: ear.config } });
    browsers.push(await launch({ colour: COLOURS.ada }), await launch({ colour: COLOURS.grace }));
    ada = await openPage(browsers[0]);
    grace = await openPage(browsers[1], { packets: true });
  });
  after(async () => {
    for (const browser of browsers) await browser.close();
    await server?.stop();
    await ear?.stop();
  });

  step('the second person comes by the link that the first one copies', async () => {
    adasCall = await practice(ada, server, { plan: SHORT_PLAN, listen: false });
    gracesCall = await accept(grace, await inviteLink(ada), { name: 'Grace', listen: false });
    assert.equal(gracesCall.role, 'interviewer');
    assert.equal(gracesCall.id, adasCall.id);
  });

  step('both see each other', async () => {
    for (const [page, other, colour] of [
      [ada, gracesCall, COLOURS.grace],
      [grace, adasCall, COLOURS.ada],
    ]) {
      await until(`the picture of ${other.name}`, async () => {
        const picture = (await page.evaluate(() => window.viva.pictures())).find((p) => p.identity === other.identity);
        return picture?.width > 0 && picture.colour.every((c, i) => Math.abs(c - colour[i]) < 24) && picture;
      });
      const before = await framesDecoded(page);
      await until('new frames', async () => (await framesDecoded(page)) >= before + 30);
    }
  });

  step('both hear each other', async () => {
    for (const [from, to, sender, words] of [
      [ada, grace, adasCall, STORY.ada],
      [grace, ada, gracesCall, STORY.grace],
    ]) {
      const wav = await speak([0.3, ...words, 0.3]);
      await say(from, wav);
      await sleep(500);
      const sound = await played(to, await audioOf(to, sender.identity));
      writeWav(join(output('e2e'), `two-people-${sender.name}.wav`), sound.samples, sound.rate);
      const { share, voiced } = likeness(compare(readWav(wav), sound));
      assert.ok(voiced >= 15, `${voiced} voiced windows`);
      assert.ok(share >= 0.95, `${sender.name}: ${(share * 100).toFixed(0)} % of ${voiced} voiced windows are alike`);
    }
  });

  step('who declined is not tapped, and the interviewer stays silent', async () => {
    assert.equal(await server.metric(TAP), 0);
    assert.deepEqual(await ear.log(), []);
    await ada.getByTestId('waiting-consent').waitFor();
    assert.equal(await ring(ada), 'resting');
    assert.deepEqual(await storedTranscript(server, adasCall), []);
  });

  step('allowed later, the interviewer begins, and the second person hears it too', async () => {
    await ada.getByRole('button', { name: 'Let the AI listen' }).click();
    await interviewerIs(ada, 'listening', { timeout: 60_000 });
    assert.ok((await server.metric(TAP)) > 0);
    await until('Grace to have the interviewer’s voice', () => audioOf(grace, 'viva-interviewer'));
  });

  step('the second person’s talk stays out of it without consent', async () => {
    await say(grace, await speak([0.2, ANSWERS.steps, 0.2]));
    await sleep(1500);
    assert.equal(await ring(ada), 'listening');
    assert.deepEqual(await ear.log(), []);
  });

  step('the response latency is the gap in the recorded audio', async () => {
    await answer(ada, ANSWERS.short);
    await answer(ada, ANSWERS.part);
    await answer(ada, ANSWERS.hardest);
    await interviewerIs(ada, 'listening');
    const { turns } = await server.get(`/v1/interviews/${adasCall.id}/turns`, adasCall.token);
    const replies = turns.filter((t) => t.act !== 'greet' && t.times.first_packet_us != null);
    assert.deepEqual(turns.map((t) => t.act), ['greet', 'probe', 'ask', 'ask'].slice(0, turns.length));
    const person = arrivals(await arrived(grace, await audioOf(grace, adasCall.identity)));
    const voice = arrivals(await arrived(grace, await audioOf(grace, 'viva-interviewer')));
    const starts = burstStarts(voice).slice(-replies.length);
    assert.equal(starts.length, replies.length);
    const rows = starts.map((start, i) => {
      const gap = start - lastLoudBefore(person, start);
      return { act: replies[i].act, gap, told: replies[i].times.first_packet_us / 1000 };
    });
    for (const { act, gap, told } of rows) console.log(`    ${act}: recorded gap ${gap.toFixed(1)} ms, told ${told.toFixed(1)} ms`);
    for (const { act, gap, told } of rows) assert.ok(Math.abs(gap - told) <= 20, `${act}: ${gap.toFixed(1)} ms recorded, ${told.toFixed(1)} ms told`);
    const metrics = await server.metrics();
    assert.equal(metrics.get('viva_response_latency_seconds_count'), replies.length);
    const told = rows.reduce((sum, row) => sum + row.told, 0) / 1000;
    assert.ok(Math.abs(metrics.get('viva_response_latency_seconds_sum') - told) < 0.005 * rows.length, 'histogram and turns agree');
    for (const { gap } of rows) assert.ok(inBucket(metrics, gap / 1000), `the histogram has a reply of ${gap.toFixed(0)} ms`);
  });

  step('withdrawn in the middle of an answer, listening stops within a second', async () => {
    const talking = say(ada, await speak([0.2, ANSWERS.steps, 0.2, ANSWERS.again, 0.2, ANSWERS.hardest]));
    await until('the tap to count', async () => {
      const before = await server.metric(TAP);
      await sleep(200);
      return (await server.metric(TAP)) > before;
    });
    await ada.getByRole('button', { name: 'AI interviewer' }).click();
    await ada.getByRole('switch', { name: 'The AI may listen to me' }).uncheck();
    await sleep(1000);
    const stopped = await server.metric(TAP);
    await talking;
    assert.equal(await server.metric(TAP), stopped, 'no packet is tapped a second later');
    await ada.getByRole('button', { name: 'Close' }).click();
    await ada.getByTestId('waiting-consent').waitFor();
    const [last] = await server.sql(`select purpose, granted from consents where interview = '${adasCall.id}' and identity = '${adasCall.identity}' order by seq desc limit 1`);
    assert.deepEqual(last, { purpose: 'ai_interviewer', granted: 0 });
  });

  step('only what was allowed stands in the transcript', async () => {
    const lines = await storedTranscript(server, adasCall);
    assert.deepEqual(said(lines, 'interviewer'), []);
    const own = said(lines, 'interviewee').join(' ');
    assert.ok(own.startsWith([ANSWERS.short, ANSWERS.part, ANSWERS.hardest].join(' ')), own);
    assert.ok(!own.includes(ANSWERS.again), own);
  });

  step('the pages had no errors', () => assert.deepEqual([...ada.faults, ...grace.faults], []));

  async function framesDecoded(page) {
    const stats = await page.evaluate(() => window.viva.stats());
    return stats.filter((s) => s.type === 'inbound-rtp' && s.kind === 'video').reduce((sum, s) => sum + (s.framesDecoded ?? 0), 0);
  }
});

/** Whether some bucket at or next to this value holds an observation: the histogram agrees within its own width. */
function inBucket(metrics, seconds) {
  const buckets = [...metrics]
    .map(([name, count]) => [name.match(/^viva_response_latency_seconds_bucket\{le="([^"]+)"\}$/)?.[1], count])
    .filter(([le]) => le)
    .map(([le, count]) => ({ le: le === '+Inf' ? Infinity : Number(le), count }))
    .sort((a, b) => a.le - b.le);
  return buckets.some(({ le, count }, i) => {
    const low = buckets[i - 1]?.le ?? 0;
    return count > (buckets[i - 1]?.count ?? 0) && seconds > low - 0.02 && seconds < le + 0.02;
  });
}
