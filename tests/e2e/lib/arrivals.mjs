// Two tracks as they arrived at one receiver, on its own clock and before any jitter buffer: the only place outside of
// the server where the gap between a person's voice and the interviewer's can be measured to a few ms. Each track's
// jitter buffer would add a delay of its own.
import { LOUD } from './sound.mjs';
import { RATE } from './speech.mjs';

/** Silence between two packets that parts two turns of a voice that sends nothing while silent, ms. */
const PAUSE_MS = 700;

/** How far below the loudest sound of a stretch of speech another is still part of it: -34 dB. */
const AUDIBLE_BELOW_PEAK = 0.02;
/** How far back a stretch of speech reaches at most, ms. */
const STRETCH_MS = 8000;

/** Packets in order of arrival with the level of their loudest 5 ms: [{at, rtp, size, level}]. */
export function arrivals(packets) {
  return packets
    .map(({ at, rtp, size, samples }) => {
      const quarter = samples.length >> 2;
      return { at, rtp, size, level: Math.max(...[0, 1, 2, 3].map((q) => rms(samples, q * quarter, (q + 1) * quarter))) };
    })
    .sort((a, b) => a.at - b.at);
}

/** The sound of a track as its packets hold it, laid out by RTP time; silence where the sender sent nothing. */
export function laidOut(packets, rate) {
  const [first, last] = [packets[0].rtp, packets.at(-1)];
  const samples = new Int16Array(last.rtp - first + last.samples.length);
  for (const packet of packets) samples.set(packet.samples, packet.rtp - first);
  return { samples, rate };
}

function rms(samples, from, to) {
  let sum = 0;
  for (let i = from; i < to; i++) sum += samples[i] * samples[i];
  return Math.sqrt(sum / Math.max(1, to - from));
}

/** Arrival of the first packet of every turn. */
export function burstStarts(list, pause = PAUSE_MS) {
  return list.filter((p, i) => i === 0 || p.at - list[i - 1].at > pause).map((p) => p.at);
}

/** Arrival of the last packet before `time` with sound in it that can be heard beside the speech before. */
export function lastAudibleBefore(list, time) {
  const stretch = list.filter((p) => p.at < time && p.at > time - STRETCH_MS);
  const loudest = Math.max(0, ...stretch.map((p) => p.level));
  if (loudest < LOUD) throw new Error('nothing was said before this moment');
  return stretch.filter((p) => p.level >= loudest * AUDIBLE_BELOW_PEAK).at(-1).at;
}

/**
 * How late the packet that arrived at `time` was, ms, against the promptest within a second of it: what a busy machine
 * adds between the server and this receiver.
 */
export function lateness(list, time) {
  const delay = (p) => p.at - p.rtp / (RATE / 1000);
  const near = list.filter((p) => Math.abs(p.at - time) < 1000).map(delay);
  return delay(list.find((p) => p.at === time)) - Math.min(...near);
}
