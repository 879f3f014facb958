// Speech for tests: espeak-ng says it, sox brings it to what Chromium's fake microphone wants.
import { createHash } from 'node:crypto';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { must } from './process.mjs';
import { output, TOOLS } from './paths.mjs';
import { readWav } from './sound.mjs';
import { writeFileSync } from 'node:fs';

/** The interviewee's voice: heard without error, and not the interviewer's. */
export const VOICE = 'en-us+f3';
/** The sample rate of Chromium's capture and of Opus. */
export const RATE = 48_000;

/**
 * Says a list of parts, strings and pauses in seconds, into one 48 kHz mono 16-bit WAV. The same parts give the same
 * file, which is made once.
 * @returns {Promise<string>} its path
 */
export async function speak(parts, { voice = VOICE } = {}) {
  const list = Array.isArray(parts) ? parts : [parts];
  const name = createHash('sha256').update(JSON.stringify([list, voice])).digest('hex').slice(0, 16);
  const folder = output('e2e', 'speech');
  const path = join(folder, `${name}.wav`);
  if (existsSync(path)) return path;
  const pieces = [];
  for (const part of list) {
    if (typeof part === 'number') {
      pieces.push(Buffer.alloc(Math.round(part * RATE) * 2));
    } else {
      const wav = await must('espeak-ng', ['-v', voice, '--stdout', part]);
      const raw = ['-t', 'raw', '-r', RATE, '-c', 1, '-b', 16, '-e', 'signed', '-'].map(String);
      pieces.push(await must('sox', ['-V1', '-t', 'wav', '-', '-G', ...raw], { input: wav }));
    }
  }
  const temporary = `${path}.${process.pid}`;
  await must('sox', ['-t', 'raw', '-r', String(RATE), '-c', '1', '-b', '16', '-e', 'signed', '-', '-t', 'wav', temporary], {
    input: Buffer.concat(pieces),
  });
  renameSync(temporary, path);
  return path;
}

/** Length of a WAV file in seconds. */
export function seconds(path) {
  const { samples, rate } = readWav(path);
  return samples.length / rate;
}

/** What of `sentences` is said in a recording: one entry a phrase, text "" where a phrase is none of them. */
export async function hearPhrases(path, sentences, { pause } = {}) {
  const list = sentencesFile(sentences);
  const out = await must('python3', [join(TOOLS, 'ear.py'), '--sentences', list, '--phrases', ...(pause ? ['--pause', String(pause)] : []), path]);
  return JSON.parse(out).phrases;
}

/** What of `sentences` is said in a recording, taken as a whole. */
export async function hear(path, sentences) {
  return JSON.parse(await must('python3', [join(TOOLS, 'ear.py'), '--sentences', sentencesFile(sentences), path]));
}

export function sentencesFile(sentences) {
  const name = createHash('sha256').update(JSON.stringify(sentences)).digest('hex').slice(0, 16);
  const path = join(output('e2e', 'speech'), `${name}.json`);
  writeFileSync(path, JSON.stringify(sentences));
  return path;
}

/** The words of a sentence without case and marks: how two texts are compared. */
export const plain = (text) =>
  text
    .toLowerCase()
    .replace(/[^a-z' ]+/g, ' ')
    .split(' ')
    .filter(Boolean)
    .join(' ');
