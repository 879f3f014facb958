// Two tracks as they arrived at one receiver, on its own clock and before any jitter buffer: the only place outside of
// the server where the gap between a person's voice and the interviewer's can be measured to a few ms. Each track's
// jitter buffer would add a delay of its own.
import { LOUD } from './sound.mjs';

/** Silence between two packets that parts two turns of a voice that sends nothing while silent, ms. */
const PAUSE_MS = 700;

/** Packets in order of arrival with the level of each 10 ms half: [{at, rtp, halves}]. */
export function arrivals(packets) {
  return packets
    .map(({ at, rtp, size, samples }) => {
      const middle = samples.length >> 1;
      return { at, rtp, size, halves: [rms(samples, 0, middle), rms(samples, middle, samples.length)] };
    })
    .sort((a, b) => a.at - b.at);
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

/** Arrival of the last packet before `time` with audible sound in it. */
export function lastLoudBefore(list, time, floor = LOUD) {
  const loud = list.filter((p) => p.at < time && Math.max(...p.halves) > floor);
  if (loud.length === 0) throw new Error('nothing was said before this moment');
  return loud.at(-1).at;
}

/** Arrival of the last packet before `time`. */
export const lastBefore = (list, time) => list.filter((p) => p.at < time).at(-1)?.at;
