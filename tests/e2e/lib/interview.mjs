// Going through an interview, and what must be true of any that is over.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { audioOf, played, say } from './browser.mjs';
import { output } from './paths.mjs';
import { writeWav } from './sound.mjs';
import { plain, speak } from './speech.mjs';
import { INTERVIEWER } from './story.mjs';
import { interviewerIs, ring } from './visit.mjs';
import { until } from './wait.mjs';

/** Silence round an answer, as people leave it. */
export const spoken = (answer) => speak([0.3, answer, 0.3]);

/** Waits for the interviewer's turn to be over and answers; resolves when the interviewer reacts. */
export async function answer(page, words) {
  await interviewerIs(page, 'listening');
  await say(page, await spoken(words));
  await until('the interviewer to reply', async () => ['speaking', 'gone'].includes(await ring(page)), { every: 20 });
}

/** Writes what the page played of the interviewer to a file to be heard by the ear and, later, by a person. */
export async function interviewerPlayed(page, name) {
  const path = join(output('e2e'), `${name}-interviewer.wav`);
  const index = await audioOf(page, INTERVIEWER);
  assert.ok(index !== undefined, 'the page has the interviewer’s audio track');
  const sound = await played(page, index);
  writeWav(path, sound.samples, sound.rate);
  return { path, ...sound };
}

/** What one side said, as the store kept it. */
export const said = (lines, role) => lines.filter((line) => line.role === role).map((line) => plain(line.text));

/** REST and SQLite tell the same transcript; returns its lines. */
export async function storedTranscript(server, call) {
  const { lines } = await server.get(`/v1/interviews/${call.id}/transcript`, call.token);
  const rows = await server.sql(`select seq, identity, role, text from transcript where interview = '${call.id}' order by seq`);
  assert.deepEqual(
    rows,
    lines.map(({ seq, identity, role, text }) => ({ seq, identity, role, text })),
    'REST and SQLite hold the same transcript',
  );
  return lines;
}

/** The interviewer's words, apart from the interviewee's: captions of one identity. */
export const ofInterviewer = (list) => list.filter((c) => c.identity === INTERVIEWER);

/** Whether `wanted` come in `list` in this order, other things between. */
export function inOrder(list, wanted) {
  let at = 0;
  for (const item of list) if (at < wanted.length && item.includes(wanted[at])) at++;
  return at === wanted.length;
}
