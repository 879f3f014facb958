// Sound as numbers: WAV files, levels, alignment of what was received with what was sent, tones.
// Pure apart from reading and writing files.
import { readFileSync, writeFileSync } from 'node:fs';

/** 16-bit mono PCM WAV -> {rate, samples: Int16Array}. */
export function readWav(path) {
  const file = readFileSync(path);
  let at = 12;
  let rate = 0;
  while (at + 8 <= file.length) {
    const id = file.toString('latin1', at, at + 4);
    const size = Math.min(file.readUInt32LE(at + 4), file.length - at - 8);
    if (id === 'fmt ') {
      rate = file.readUInt32LE(at + 12);
      const [channels, bits] = [file.readUInt16LE(at + 10), file.readUInt16LE(at + 22)];
      if (channels !== 1 || bits !== 16) throw new Error(`${path}: ${channels} channels of ${bits} bits; one of 16 is wanted`);
    }
    if (id === 'data') {
      const samples = new Int16Array(size >> 1);
      for (let i = 0; i < samples.length; i++) samples[i] = file.readInt16LE(at + 8 + 2 * i);
      return { rate, samples };
    }
    at += 8 + size + (size & 1);
  }
  throw new Error(`${path} holds no sound`);
}

export function writeWav(path, samples, rate) {
  const data = Buffer.from(Int16Array.from(samples).buffer);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + data.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(rate, 24);
  head.writeUInt32LE(rate * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(data.length, 40);
  writeFileSync(path, Buffer.concat([head, data]));
}

/** RMS of every stretch of `step` seconds, in units of one sample step. */
export function levels({ samples, rate }, step = 0.01) {
  const size = Math.round(rate * step);
  const out = new Float64Array(Math.floor(samples.length / size));
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let k = i * size; k < (i + 1) * size; k++) sum += samples[k] * samples[k];
    out[i] = Math.sqrt(sum / size);
  }
  return out;
}

/** RMS above which a stretch counts as sound: -44 dB of full scale. */
export const LOUD = 200;

/** Stretches of sound, apart by at least `pause` seconds: [{start, end}] in seconds. */
export function stretches(sound, { pause = 0.2, floor = LOUD } = {}) {
  const step = 0.01;
  const out = [];
  levels(sound, step).forEach((level, i) => {
    if (level <= floor) return;
    const last = out.at(-1);
    if (last && i * step - last.end < pause) last.end = (i + 1) * step;
    else out.push({ start: i * step, end: (i + 1) * step });
  });
  return out;
}

/** Every third sample of a low-passed signal: 48 kHz to 16 kHz, good for comparing, not for listening. */
export function third({ samples, rate }) {
  const out = new Float32Array(Math.floor(samples.length / 3) - 4);
  // A short windowed sinc at 6 kHz; both sides of a comparison go through the same.
  const taps = kernel(25, 6000 / rate);
  const half = 12;
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let k = -half; k <= half; k++) sum += (samples[3 * i + k] ?? 0) * taps[k + half];
    out[i] = sum;
  }
  return { samples: out, rate: rate / 3 };
}

function kernel(length, cutoff) {
  const middle = (length - 1) / 2;
  const taps = Array.from({ length }, (_, i) => {
    const x = i - middle;
    const sinc = x === 0 ? 2 * cutoff : Math.sin(2 * Math.PI * cutoff * x) / (Math.PI * x);
    return sinc * (0.54 - 0.46 * Math.cos((2 * Math.PI * i) / (length - 1)));
  });
  const sum = taps.reduce((a, b) => a + b);
  return taps.map((t) => t / sum);
}

/**
 * Where `reference` lies in `recording`, by their levels: seconds to add to a time in the reference, and how alike they
 * are there (0..1).
 */
export function locate(reference, recording) {
  const [a, b] = [levels(reference), levels(recording)];
  const norm = (x) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
  const na = norm(a);
  let best = { score: -1, offset: 0 };
  for (let shift = -a.length + 50; shift < b.length - 50; shift++) {
    let dot = 0;
    let nb = 0;
    for (let i = Math.max(0, -shift); i < a.length && i + shift < b.length; i++) {
      dot += a[i] * b[i + shift];
      nb += b[i + shift] * b[i + shift];
    }
    const score = nb > 0 ? dot / (na * Math.sqrt(nb)) : 0;
    if (score > best.score) best = { score, offset: shift * 0.01 };
  }
  return best;
}

/**
 * Compares what was received with what was sent, in windows of 250 ms, each aligned by itself: a jitter buffer stretches
 * what lies between two windows, a pause by some 100 ms.
 * @returns {{start: number, voiced: boolean, correlation: number, lag: number}[]} times and lags in seconds
 */
export function compare(reference, recording, { window = 0.25, search = 0.4 } = {}) {
  const { offset } = locate(reference, recording);
  const [a, b] = [third(reference), third(recording)];
  const rate = a.rate;
  const size = Math.round(window * rate);
  const reach = Math.round(search * rate);
  let centre = Math.round(offset * rate);
  const loudest = Math.max(...levels(a, window));
  const out = [];
  for (let start = 0; start + size <= a.samples.length; start += size) {
    const level = rms(a.samples, start, size);
    const voiced = level > 0.1 * loudest && isVoiced(a.samples, start, size, rate);
    if (!voiced) {
      out.push({ start: start / rate, voiced, correlation: 0, lag: 0 });
      continue;
    }
    let best = { correlation: -1, lag: centre };
    const look = (from, to) => {
      for (let lag = from; lag <= to; lag++) {
        const correlation = correlate(a.samples, start, b.samples, start + lag, size);
        if (correlation > best.correlation) best = { correlation, lag };
      }
    };
    // Most windows lie where the one before lay.
    look(centre - 3, centre + 3);
    if (best.correlation < 0.9) look(centre - reach, centre + reach);
    if (best.correlation > 0.8) centre = best.lag;
    out.push({ start: start / rate, voiced, correlation: best.correlation, lag: best.lag / rate });
  }
  return out;
}

/** Share of the voiced windows whose correlation is at least 0.8, and their number. */
export function likeness(windows) {
  const voiced = windows.filter((w) => w.voiced);
  const good = voiced.filter((w) => w.correlation >= 0.8);
  return { share: voiced.length ? good.length / voiced.length : 0, voiced: voiced.length };
}

function rms(samples, start, size) {
  let sum = 0;
  for (let i = start; i < start + size; i++) sum += samples[i] * samples[i];
  return Math.sqrt(sum / size);
}

function correlate(a, i, b, k, size) {
  let [dot, aa, bb] = [0, 0, 0];
  for (let n = 0; n < size; n++) {
    const x = a[i + n];
    const y = b[k + n] ?? 0;
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? dot / Math.sqrt(aa * bb) : 0;
}

/** Whether a window repeats itself at the pitch of a voice (70-400 Hz) and is loud for most of its length. */
function isVoiced(samples, start, size, rate) {
  const block = Math.round(0.02 * rate);
  const peak = rms(samples, start, size);
  let loud = 0;
  for (let i = start; i + block <= start + size; i += block) if (rms(samples, i, block) > 0.3 * peak) loud++;
  if (loud < (0.5 * size) / block) return false;
  let best = 0;
  for (let lag = Math.round(rate / 400); lag < rate / 70; lag++) {
    best = Math.max(best, correlate(samples, start, samples, start + lag, size - lag));
  }
  return best > 0.4;
}

/**
 * The tones of a recording in order, each as one of the given frequencies: windows of 30 ms, one each 10 ms, count where
 * a single frequency carries at least `share` of their energy; a tone is heard in at least two windows in a row.
 */
export function tones({ samples, rate }, frequencies, { share = 0.7 } = {}) {
  const every = 8;
  const size = Math.round((0.03 * rate) / every);
  const step = Math.round((0.01 * rate) / every);
  const low = new Float32Array(Math.floor(samples.length / every));
  for (let i = 0; i < low.length; i++) {
    for (let k = 0; k < every; k++) low[i] += samples[i * every + k] / every;
  }
  const waves = frequencies.map((hz) =>
    Array.from({ length: size }, (_, i) => (2 * Math.PI * hz * i * every) / rate).map((p) => [Math.cos(p), Math.sin(p)]),
  );
  const out = [];
  let run = { hz: 0, length: 0 };
  for (let start = 0; start + size <= low.length; start += step) {
    let energy = 0;
    for (let i = 0; i < size; i++) energy += low[start + i] ** 2;
    let best = { power: 0, hz: 0 };
    if (Math.sqrt(energy / size) > LOUD) {
      waves.forEach((wave, n) => {
        let [re, im] = [0, 0];
        for (let i = 0; i < size; i++) {
          re += low[start + i] * wave[i][0];
          im += low[start + i] * wave[i][1];
        }
        const power = (2 * (re * re + im * im)) / (size * energy);
        if (power > best.power) best = { power, hz: frequencies[n] };
      });
    }
    const hz = best.power >= share ? best.hz : 0;
    run = hz === run.hz ? { hz, length: run.length + 1 } : { hz, length: 1 };
    if (run.hz && run.length === 2) out.push(hz);
  }
  return out;
}

/** Length of the longest common subsequence; `same` says whether two elements match. */
export function common(a, b, same = (x, y) => x === y) {
  let row = new Array(b.length + 1).fill(0);
  for (const x of a) {
    const next = [0];
    b.forEach((y, k) => next.push(same(x, y) ? row[k] + 1 : Math.max(row[k + 1], next[k])));
    row = next;
  }
  return row.at(-1);
}
