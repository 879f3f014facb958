// What a person does with the page, in their words.
import { plain } from './speech.mjs';
import { sleep, until } from './wait.mjs';

const choose = (page, start) => page.getByRole('radio', { name: new RegExp(`^${start}`) }).check();

async function consent(page, { listen = true, keep = true }) {
  await choose(page, listen ? 'Yes, the AI may listen' : 'No, it may not listen');
  await choose(page, keep ? 'Yes, keep a transcript' : 'No, keep nothing I say');
}

/** From the start page to the ready check. */
export async function choosePractice(page, server, { plan, name = 'Ada', ...answers }) {
  await page.goto(server.base);
  await choose(page, plan);
  await page.getByLabel('Your name').fill(name);
  await consent(page, answers);
  await page.getByRole('button', { name: 'Continue to the ready check' }).click();
  await page.getByRole('heading', { name: 'Ready check' }).waitFor();
}

/** From the ready check into the room. Resolves with the place that the page got: {id, token, identity, invitePath}. */
export async function join(page) {
  await page.getByRole('button', { name: /^Join / }).click();
  await page.getByTestId('room').waitFor();
  await live(page);
  return page.evaluate(() => {
    const id = decodeURIComponent(location.pathname.split('/')[2]);
    return JSON.parse(sessionStorage.getItem(`viva.call.${id}`));
  });
}

export const live = (page) =>
  until('the page to be in the call', async () => (await page.getByTestId('room').getAttribute('data-status')) === 'live');

/** Start page, consent, ready check, room. */
export async function practice(page, server, choices) {
  await choosePractice(page, server, choices);
  return join(page);
}

/** By the link that the first person copies, as a second interviewer. */
export async function accept(page, link, { name = 'Grace', ...answers }) {
  await page.goto(link);
  await page.getByLabel('Your name').fill(name);
  await consent(page, answers);
  await page.getByRole('button', { name: 'Continue to the ready check' }).click();
  await page.getByRole('heading', { name: 'Ready check' }).waitFor();
  return join(page);
}

/** The invite link, as the page shows it. */
export async function inviteLink(page) {
  await page.getByRole('button', { name: 'Invite', exact: true }).click();
  const link = await page.getByLabel('Invite link').inputValue();
  await page.getByRole('button', { name: 'Close' }).click();
  return link;
}

/** The ring's state: joining, listening, thinking, speaking, waiting or resting; `gone` when it left. */
export const ring = (page) =>
  page.evaluate(() => document.querySelector('[data-testid=ring]')?.dataset.state ?? 'gone');

/** Waits until the interviewer has the given state and keeps it for a moment. */
export async function interviewerIs(page, state, options) {
  await until(
    `the interviewer to be ${state}`,
    async () => {
      if ((await ring(page)) !== state) return false;
      await sleep(350);
      return (await ring(page)) === state;
    },
    options,
  );
}

/** The question on screen and how far the plan is: {question, progress}. */
export const question = (page) =>
  page.evaluate(() => ({
    question: document.querySelector('[data-testid=question-text]')?.textContent ?? '',
    progress: document.querySelector('[data-testid=progress]')?.textContent ?? '',
  }));

/** Captions on screen: [{identity, text, final}]. */
export const captions = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('[data-testid=caption]')].map((c) => ({
      identity: c.dataset.identity,
      final: c.dataset.final === 'true',
      text: c.querySelector('.caption-text').textContent,
    })),
  );

/** Waits for a caption of a person that holds these words. */
export async function captionOf(page, identity, words, options) {
  return until(
    `the caption "${words}"`,
    async () => (await captions(page)).find((c) => c.identity === identity && c.final && plain(c.text).includes(plain(words))),
    options,
  );
}

/** Lines of the transcript page: [{role, identity, text}]. */
export const transcriptLines = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('[data-testid=line]')].map((line) => ({
      role: line.dataset.role,
      identity: line.dataset.identity,
      text: line.querySelector('.line-text').textContent.trim(),
    })),
  );

/** The transcript page, which opens by itself at the end. */
export async function transcriptOpens(page) {
  await page.waitForURL('**/transcript/**', { timeout: 60_000 });
  await page.getByTestId('transcript').waitFor();
  return transcriptLines(page);
}
