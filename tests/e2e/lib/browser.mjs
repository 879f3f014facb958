// Chromium as people have it: a fake camera and microphone behind the browser's own devices, and a page with hooks.
import { closeSync, existsSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { hook } from './hooks.mjs';
import { CHROMIUM, output } from './paths.mjs';
import { writeWav } from './sound.mjs';
import { RATE } from './speech.mjs';

export const PHONE = { width: 390, height: 844 };
export const TABLET = { width: 834, height: 1112 };
export const DESKTOP = { width: 1440, height: 900 };
/** What a second person's picture is told apart by. */
export const COLOURS = { ada: [176, 84, 60], grace: [52, 92, 168] };

const SIZE = { width: 640, height: 360, fps: 15 };

/** A raw video of one colour with a block that moves, for the fake camera. Made once. */
function camera(colour) {
  const path = join(output('e2e', 'video'), `${colour.join('-')}.y4m`);
  if (existsSync(path)) return path;
  const { width, height, fps } = SIZE;
  const [r, g, b] = colour;
  const clamp = (v) => Math.max(0, Math.min(255, Math.round(v)));
  const y = clamp(16 + 0.257 * r + 0.504 * g + 0.098 * b);
  const u = clamp(128 - 0.148 * r - 0.291 * g + 0.439 * b);
  const v = clamp(128 + 0.439 * r - 0.368 * g - 0.071 * b);
  const file = openSync(`${path}.part`, 'w');
  writeSync(file, `YUV4MPEG2 W${width} H${height} F${fps}:1 Ip A1:1 C420jpeg\n`);
  for (let n = 0; n < fps; n++) {
    const luma = Buffer.alloc(width * height, y);
    const left = Math.round(((width - 40) * n) / fps);
    for (let row = 300; row < 320; row++) luma.fill(clamp(y + 60), row * width + left, row * width + left + 40);
    writeSync(file, 'FRAME\n');
    writeSync(file, luma);
    writeSync(file, Buffer.alloc((width * height) / 4, u));
    writeSync(file, Buffer.alloc((width * height) / 4, v));
  }
  closeSync(file);
  renameSync(`${path}.part`, path);
  return path;
}

/**
 * Starts a browser. `speech`: the WAV that its microphone plays once from every opening on, or again and again (`loop`);
 * silence if absent. `picture`: the raw video of its camera, if it is not of one colour.
 * `permission: false`: the person has refused camera and microphone. `program`: what starts the browser.
 */
export async function launch({ speech, loop = false, colour = COLOURS.ada, picture, permission = true, program = CHROMIUM } = {}) {
  return chromium.launch({
    executablePath: program,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      ...(permission ? ['--use-fake-ui-for-media-stream'] : ['--deny-permission-prompts']),
      `--use-fake-device-for-media-stream=fps=${SIZE.fps}`,
      `--use-file-for-fake-audio-capture=${speech ?? silence()}${loop ? '' : '%noloop'}`,
      `--use-file-for-fake-video-capture=${picture ?? camera(colour)}`,
      '--autoplay-policy=no-user-gesture-required',
      '--allow-loopback-in-peer-connection',
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  });
}

function silence() {
  const path = join(output('e2e', 'speech'), 'silence.wav');
  if (!existsSync(path)) writeWav(path, new Int16Array(RATE), RATE);
  return path;
}

/**
 * A page with hooks (see hooks.mjs). Errors of the page are collected in `page.faults`.
 * `microphone`: `device` as the page asks for it, `plain` without voice processing, `cue` to say things at will.
 */
export async function openPage(browser, { microphone = 'cue', packets = false, steady = false, viewport = DESKTOP, dark = false, ignoreHTTPSErrors = false } = {}) {
  const context = await browser.newContext({
    viewport,
    ignoreHTTPSErrors,
    colorScheme: dark ? 'dark' : 'light',
    // The hooks bring their own worklet and worker; the page's policy would keep them out.
    bypassCSP: true,
  });
  await context.addInitScript({ content: `(${hook})(${JSON.stringify({ microphone, packets, steady })});` });
  const page = await context.newPage();
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(error.message));
  page.on('console', (message) => message.type() === 'error' && page.faults.push(message.text()));
  return page;
}

/** Says a WAV file into the page's microphone (`cue`). Resolves when it is over. */
export async function say(page, wav) {
  await page.evaluate((text) => window.viva.say(text), readFileSync(wav).toString('base64'));
}

export const hush = (page) => page.evaluate(() => window.viva.hush());

const samplesOf = (text) => {
  const bytes = Buffer.from(text, 'base64');
  return new Int16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};

/** Everybody that the page was told of: [{sid, identity}]. */
export const people = (page) => page.evaluate(() => window.viva.people);

/** Index of the newest audio track of a person. */
export async function audioOf(page, identity) {
  return page.evaluate((wanted) => {
    const sids = window.viva.people.filter((p) => p.identity === wanted).map((p) => p.sid);
    const theirs = (t) => t.kind === 'audio' && t.streams.some((s) => sids.includes(s.split('|')[0]));
    const index = window.viva.tracks.findLastIndex(theirs);
    return index < 0 ? undefined : index;
  }, identity);
}

/** What the page has played of a track: {samples, rate, at}; `at` is the Unix time in ms of the first sample. */
export async function played(page, index) {
  const { samples, at } = await page.evaluate((i) => window.viva.recording(i), index);
  return { samples: samplesOf(samples), rate: RATE, at };
}

/** Every packet of a track as it arrived (page opened with `packets`). */
export async function arrived(page, index) {
  const list = await page.evaluate((i) => window.viva.packets(i), index);
  return list.map((p) => ({ ...p, samples: samplesOf(p.samples) }));
}
