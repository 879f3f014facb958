// People in a call by `livekit-client`, and what their browsers count.
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { launch, openPage } from '../lib/browser.mjs';
import { SDK } from '../lib/meeting.mjs';
import { output } from '../lib/paths.mjs';
import { must } from '../lib/process.mjs';
import { speak } from '../lib/speech.mjs';

/** Speech with pauses as people make them; the microphone plays it again and again. */
export const speech = () =>
  speak([
    'I have worked on billing systems for six years, and most of that time was spent on moving money safely.', 0.4,
    'We found that two services counted the same invoice, so I wrote a small ledger that both of them had to ask.', 0.5,
    'What I learned is that nobody reads a warning twice. You have to make the wrong thing hard to do.', 0.4,
    'My last project was a queue that survives a restart, and I am still rather proud of its tests.', 0.5,
  ]);

/** A picture in which everything moves, so that frames have the size of real ones. */
export async function camera() {
  const path = join(output('e2e', 'video'), 'moving.y4m');
  if (existsSync(path)) return path;
  const source = 'testsrc2=size=640x360:rate=15:duration=6';
  await must('ffmpeg', ['-loglevel', 'error', '-y', '-f', 'lavfi', '-i', source, '-pix_fmt', 'yuv420p', '-f', 'yuv4mpegpipe', `${path}.part`]);
  renameSync(`${path}.part`, path);
  return path;
}

/** Runs in the page: joins, and watches when pictures come. */
async function enter({ url, token, publish, video }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = (window.room = new Room());
  window.gaps = [];
  const watch = async (track) => {
    const frames = new MediaStreamTrackProcessor({ track }).readable.getReader();
    let last;
    for (;;) {
      const { value, done } = await frames.read();
      if (done) return;
      value.close();
      const now = performance.now();
      if (last !== undefined) window.gaps.push({ at: now, ms: now - last });
      last = now;
    }
  };
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = track.attach();
    document.body.append(element);
    if (track.kind === 'video') void watch(track.mediaStreamTrack);
  });
  await room.connect(url, token);
  if (!publish) return;
  // Voice processing would take the silence out of a fake microphone's speech.
  const plain = { autoGainControl: false, echoCancellation: false, noiseSuppression: false };
  await room.localParticipant.setMicrophoneEnabled(true, plain);
  if (video) await room.localParticipant.setCameraEnabled(true, { resolution: { width: 640, height: 360, frameRate: 15 } });
}

/** Runs in the page: all that it received and sent so far, by kind. */
async function look() {
  const seen = { at: performance.now(), audio: {}, video: {}, sent: { layers: {} } };
  const add = (to, stat, ...names) => names.forEach((name) => (to[name] = (to[name] ?? 0) + (stat[name] ?? 0)));
  const tracks = [...window.room.remoteParticipants.values()].flatMap((person) => [...person.trackPublications.values()]);
  for (const { track } of tracks) {
    for (const stat of (await track?.receiver?.getStats())?.values() ?? []) {
      if (stat.type !== 'inbound-rtp') continue;
      const common = ['packetsReceived', 'packetsLost', 'packetsDiscarded', 'jitterBufferDelay', 'jitterBufferEmittedCount'];
      add(seen[stat.kind], stat, ...common);
      add(seen.audio, stat.kind === 'audio' ? stat : {}, 'concealedSamples', 'silentConcealedSamples', 'totalSamplesReceived', 'fecPacketsReceived', 'fecPacketsDiscarded');
      add(seen.video, stat.kind === 'video' ? stat : {}, 'framesDecoded', 'framesDropped', 'freezeCount', 'nackCount', 'pliCount', 'bytesReceived');
      if (stat.kind === 'video') seen.video.width = stat.frameWidth;
    }
  }
  for (const { track } of window.room.localParticipant.trackPublications.values()) {
    for (const stat of (await track?.sender?.getStats())?.values() ?? []) {
      if (stat.type === 'media-source' && stat.kind === 'audio') seen.sent.spoken = stat.totalSamplesDuration;
      if (stat.type === 'outbound-rtp' && stat.kind === 'video') seen.sent.layers[stat.frameWidth ?? 0] = stat.framesSent;
    }
  }
  return seen;
}

export class Person {
  static async enter(network, who, place, { room, publish = false, video = false }) {
    const person = new Person();
    const program = network.browser(place);
    person.browser = await launch({ program, speech: await speech(), picture: video ? await camera() : undefined, loop: true });
    person.page = await openPage(person.browser, { microphone: 'device' });
    await person.page.goto(network.base);
    await person.page.addScriptTag({ path: SDK });
    const token = await network.token(who, room);
    await person.page.evaluate(enter, { url: network.base.replace('http', 'ws'), token, publish, video });
    return person;
  }

  look() {
    return this.page.evaluate(look);
  }

  /** Pauses between pictures that came since this time, in ms. */
  gaps(since) {
    return this.page.evaluate((from) => window.gaps.filter(({ at }) => at >= from).map(({ at, ms }) => ({ at: at - from, ms })), since);
  }

  leave() {
    return this.browser.close();
  }
}
