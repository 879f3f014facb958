// Real Chromium with LiveKit's browser SDK publishes in every codec, simulcast and scalable; a viewer makes the picture
// small and large again and gets the layer that fits, and the publisher stops sending what nobody looks at.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { launch, openPage } from '../lib/browser.mjs';
import { ROOT } from '../lib/paths.mjs';
import { serve, viva } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { until } from '../lib/wait.mjs';

const SDK = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');
const [WIDTH, HEIGHT] = [960, 540];

/** Runs in the page: joins. */
async function enter({ url, token }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ dynacast: true, adaptiveStream: false });
  window.seen = { room, states: [] };
  room.on(RoomEvent.TrackStreamStateChanged, (_, state) => window.seen.states.push(state));
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = track.attach();
    element.muted = true;
    document.body.append(element);
  });
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
  await room.connect(url, token);
}

/** Runs in the page: publishes a moving picture. */
async function publish({ codec, width, height, backup = false }) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const draw = canvas.getContext('2d');
  let n = 0;
  window.seen.drawing = setInterval(() => {
    n += 1;
    draw.fillStyle = `hsl(${n % 360} 60% 50%)`;
    draw.fillRect(0, 0, width, height);
    draw.fillStyle = 'white';
    draw.fillRect((n * 7) % width, height / 3, 80, 80);
  }, 66);
  const [track] = canvas.captureStream(15).getVideoTracks();
  window.seen.published = await window.seen.room.localParticipant.publishTrack(track, {
    videoCodec: codec,
    simulcast: true,
    backupCodec: backup,
    source: 'camera',
    videoEncoding: { maxBitrate: 900_000, maxFramerate: 15 },
  });
}

async function unpublish() {
  clearInterval(window.seen.drawing);
  await window.seen.room.localParticipant.unpublishTrack(window.seen.published.track);
}

/** Runs in the page: what it gets of the one video. */
async function watched() {
  for (const person of window.seen.room.remoteParticipants.values()) {
    for (const { track } of person.trackPublications.values()) {
      const report = await track?.receiver?.getStats();
      for (const stat of report?.values() ?? []) {
        if (stat.type !== 'inbound-rtp') continue;
        const { framesDecoded, frameWidth, freezeCount, framesDropped, framesPerSecond } = stat;
        return { codec: report.get(stat.codecId)?.mimeType, framesDecoded, frameWidth, freezeCount, framesDropped, framesPerSecond };
      }
    }
  }
  return undefined;
}

async function wants(quality) {
  for (const person of window.seen.room.remoteParticipants.values()) {
    for (const publication of person.trackPublications.values()) publication.setVideoQuality(quality);
  }
}

/** Runs in the page: packets that each layer has sent, by width. */
async function sent() {
  const report = await window.seen.published.track.sender.getStats();
  const layers = [...report.values()].filter((stat) => stat.type === 'outbound-rtp');
  return layers.map(({ rid, active, frameWidth, framesSent, scalabilityMode, codecId }) =>
    ({ rid, active, frameWidth, framesSent, scalabilityMode, codec: report.get(codecId)?.mimeType }));
}

describe('layers', () => {
  let server;
  const browsers = [];
  const pages = {};
  const step = steps('layers', () => ({ server, ...pages }));

  before(async () => {
    server = await serve('layers');
    for (const name of ['ada', 'ben']) {
      const browser = await launch();
      browsers.push(browser);
      pages[name] = await openPage(browser, { microphone: 'plain' });
      await pages[name].goto(server.base);
      await pages[name].addScriptTag({ path: SDK });
      const minted = await viva(['token', '--config', server.file, '--identity', name, '--room', 'layers']);
      await pages[name].evaluate(enter, { url: server.base.replace('http', 'ws'), token: minted.text.trim().split('\n').at(-1) });
    }
  });
  after(async () => {
    for (const browser of browsers) await browser.close();
    await server?.stop();
  });

  /** Waits for pictures of a width that fits, decoded one after the other. */
  const sees = async (what, fits) => {
    let before;
    return until(`ben to see ${what}`, async () => {
      const now = await pages.ben.evaluate(watched);
      const goesOn = before && now && now.framesDecoded > before.framesDecoded && fits(now);
      before = now;
      return goesOn && now;
    }, { every: 500, timeout: 45_000 });
  };
  const LOW = 0, HIGH = 2;

  for (const codec of ['vp8', 'h264', 'vp9', 'av1']) {
    step(`${codec}: the viewer gets the layer that fits the picture`, async () => {
      await pages.ada.evaluate(publish, { codec, width: WIDTH, height: HEIGHT });
      const large = await sees('the large picture', (now) => now.frameWidth === WIDTH);
      assert.equal(large.codec.toLowerCase(), `video/${codec}`);
      await pages.ben.evaluate(wants, LOW);
      const small = await sees('a small one', (now) => now.frameWidth <= WIDTH / 2);
      await pages.ben.evaluate(wants, HIGH);
      const again = await sees('the large one again', (now) => now.frameWidth === WIDTH);
      await pages.ada.evaluate(unpublish);
      await until('it to be gone', async () => !(await pages.ben.evaluate(watched)));
    });
  }

  step('where the network carries little, the picture gets small, and none before sound suffers', async () => {
    await pages.ada.evaluate(publish, { codec: 'vp8', width: WIDTH, height: HEIGHT });
    await sees('the large picture', (now) => now.frameWidth === WIDTH);
    const slow = (bps) => pages.ben.evaluate((bps) => window.seen.room.simulateScenario('subscriber-bandwidth', bps), bps);
    const states = () => pages.ben.evaluate(() => window.seen.states);
    await slow(200_000);
    await sees('a small one', (now) => now.frameWidth < WIDTH);
    await slow(20_000);
    await until('ben to be told that nothing comes', async () => (await states()).at(-1) === 'paused');
    await slow(0);
    await until('ben to be told that it comes again', async () => (await states()).at(-1) === 'active');
    await sees('the large picture again', (now) => now.frameWidth === WIDTH);
    await pages.ada.evaluate(unpublish);
    await until('it to be gone', async () => !(await pages.ben.evaluate(watched)));
  });

  step('what nobody looks at is not sent, and is when somebody looks', async () => {
    await pages.ada.evaluate(publish, { codec: 'vp8', width: WIDTH, height: HEIGHT });
    await sees('the large picture', (now) => now.frameWidth === WIDTH);
    await pages.ben.evaluate(wants, LOW);
    const of = (layers, rid) => layers.find((layer) => layer.rid === rid);
    await until('the best layer to stop', async () => of(await pages.ada.evaluate(sent), 'f')?.active === false, { timeout: 20_000 });
    assert.equal(of(await pages.ada.evaluate(sent), 'q').active, true);
    await pages.ben.evaluate(wants, HIGH);
    await sees('the large picture again', (now) => now.frameWidth === WIDTH);
    await pages.ada.evaluate(unpublish);
  });
});
