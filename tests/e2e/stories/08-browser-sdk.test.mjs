// LiveKit's own browser SDK, unmodified, in both of its forms: one peer connection and two. Three people in a room see and
// hear each other, whatever happens to their connections.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { RoomServiceClient, TrackSource } from 'livekit-server-sdk';
import { COLOURS, launch, openPage } from '../lib/browser.mjs';
import { ROOT } from '../lib/paths.mjs';
import { KEY, SECRET, serve, viva } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { until } from '../lib/wait.mjs';

const SDK = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');

/** Runs in the page: joins, publishes, and keeps what arrives where the story can read it. */
async function enter({ url, token, single }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ singlePeerConnection: single, reconnectPolicy: { nextRetryDelayInMs: () => 200 } });
  const seen = (window.seen = { room, events: [], texts: [] });
  for (const name of ['Reconnecting', 'SignalReconnecting', 'Reconnected', 'Disconnected']) {
    room.on(RoomEvent[name], () => seen.events.push(name));
  }
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = track.attach();
    element.muted = true;
    document.body.append(element);
  });
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
  room.registerTextStreamHandler('notes', async (reader) => seen.texts.push(await reader.readAll()));
  await room.connect(url, token);
  room.localParticipant.registerRpcMethod('echo', async ({ payload }) => [...payload].reverse().join(''));
  return room.localParticipant.sid;
}

/** What reaches the page now: per person, pictures decoded and sound received since they were last counted. */
async function received() {
  const counted = (window.seen.counted ??= new Map());
  const result = {};
  for (const person of window.seen.room.remoteParticipants.values()) {
    const mine = (result[person.identity] = { video: 0, audio: 0, width: 0 });
    for (const { track, trackSid } of person.trackPublications.values()) {
      const report = await track?.receiver?.getStats();
      for (const stat of report?.values() ?? []) {
        if (stat.type !== 'inbound-rtp') continue;
        const key = `${trackSid}${stat.ssrc}`;
        const now = stat.kind === 'video' ? stat.framesDecoded : stat.packetsReceived;
        mine[stat.kind] += now - (counted.get(key) ?? now);
        if (stat.kind === 'video') mine.width = stat.frameWidth ?? 0;
        counted.set(key, now);
      }
    }
  }
  return result;
}

describe('the browser SDK in both of its forms', () => {
  let server;
  const browsers = [];
  const pages = {};
  const forms = { ada: false, grace: true, edsger: false };
  const step = steps('browser-sdk', () => ({ server, ...pages }));

  before(async () => {
    server = await serve('browser-sdk');
    for (const name of Object.keys(forms)) {
      // A browser each: where pages of one open its fake camera anew at once, it gives none of them a picture any more.
      const browser = await launch({ colour: COLOURS.ada });
      browsers.push(browser);
      pages[name] = await openPage(browser, { microphone: 'plain' });
      await pages[name].goto(server.base);
      await pages[name].addScriptTag({ path: SDK });
    }
  });
  after(async () => {
    for (const browser of browsers) await browser.close();
    await server?.stop();
  });

  const join = async (name) => {
    const minted = await viva(['token', '--config', server.file, '--identity', name, '--room', 'lab']);
    assert.equal(minted.code, 0, minted.text);
    const token = minted.text.trim().split('\n').at(-1);
    return pages[name].evaluate(enter, { url: server.base.replace('http', 'ws'), token, single: forms[name] });
  };
  const publish = (name) =>
    pages[name].evaluate(async () => {
      await window.seen.room.localParticipant.enableCameraAndMicrophone();
    });
  const reaches = (name, others, kinds = ['video', 'audio']) =>
    until(`${name} to receive ${kinds} of ${others}`, async () => {
      const got = await pages[name].evaluate(received);
      return others.every((other) => kinds.every((kind) => got[other]?.[kind] > 2));
    }, { every: 700 });
  const allReach = async () => {
    for (const name of Object.keys(forms)) await reaches(name, Object.keys(forms).filter((other) => other !== name));
  };

  step('they join, and everybody gets everybody’s picture and sound', async () => {
    const sids = [await join('ada'), await join('grace')];
    await publish('ada');
    await publish('grace');
    // The last one finds tracks that are there already.
    sids.push(await join('edsger'));
    await publish('edsger');
    assert.ok(sids.every((sid) => sid.startsWith('PA_')), sids.join());
    await allReach();
  });

  step('text and calls go from each form to the other', async () => {
    const call = (page, to) =>
      page.evaluate((destinationIdentity) =>
        window.seen.room.localParticipant.performRpc({ destinationIdentity, method: 'echo', payload: 'abc' }), to);
    assert.equal(await call(pages.ada, 'grace'), 'cba');
    assert.equal(await call(pages.grace, 'ada'), 'cba');
    assert.equal(await call(pages.edsger, 'ada'), 'cba');
    await pages.grace.evaluate(() => window.seen.room.localParticipant.sendText('a note'.repeat(5000), { topic: 'notes' }));
    for (const name of ['ada', 'edsger']) {
      await until(`the note to ${name}`, () => pages[name].evaluate(() => window.seen.texts.some((t) => t.length === 30_000)));
    }
  });

  step('tracks go and come again, and take the places of those that went', async () => {
    for (let turn = 0; turn < 3; turn++) {
      await pages.grace.evaluate(() => window.seen.room.localParticipant.setCameraEnabled(false));
      await pages.grace.evaluate(async () => {
        const { localParticipant } = window.seen.room;
        for (const { track } of [...localParticipant.trackPublications.values()]) await localParticipant.unpublishTrack(track);
      });
      await until('the tracks to go', () =>
        pages.ada.evaluate(() => window.seen.room.remoteParticipants.get('grace').trackPublications.size === 0));
      await publish('grace');
      await reaches('ada', ['grace']);
      await reaches('edsger', ['grace']);
    }
    const sections = await pages.ada.evaluate(
      () => window.seen.room.engine.pcManager.subscriber.getRemoteDescription().sdp.match(/^m=(audio|video)/gm).length,
    );
    assert.ok(sections <= 5, `${sections} sections for 4 tracks`);
  });

  step('who leaves some tracks aside does not get them', async () => {
    const change = (wanted) =>
      pages.ada.evaluate((on) => {
        for (const p of window.seen.room.remoteParticipants.get('grace').trackPublications.values()) p.setSubscribed(on);
      }, wanted);
    await change(false);
    await until('the tracks to be left', () =>
      pages.ada.evaluate(() =>
        [...window.seen.room.remoteParticipants.get('grace').trackPublications.values()].every((p) => !p.isSubscribed)));
    await change(true);
    await reaches('ada', ['grace']);
  });

  step('a service in Node sees them, mutes one, and changes what another may do', async () => {
    const service = new RoomServiceClient(server.base, KEY, SECRET);
    const [room] = await service.listRooms(['lab']);
    assert.deepEqual([room.name, room.numParticipants], ['lab', 3]);
    const found = await service.listParticipants('lab');
    assert.deepEqual(found.map((p) => p.identity).sort(), Object.keys(forms).sort());
    const microphone = found.find((p) => p.identity === 'grace').tracks.find((t) => t.source === TrackSource.MICROPHONE);
    await service.mutePublishedTrack('lab', 'grace', microphone.sid, true);
    const muted = (name, of) =>
      until(`${name} to see that grace is mute`, () =>
        pages[name].evaluate((who) => {
          const { room } = window.seen;
          const p = room.localParticipant.identity === who ? room.localParticipant : room.remoteParticipants.get(who);
          return !p.isMicrophoneEnabled;
        }, of));
    await muted('grace', 'grace');
    await muted('ada', 'grace');
    await pages.grace.evaluate(() => window.seen.room.localParticipant.setMicrophoneEnabled(true));
    await reaches('ada', ['grace']);

    await service.updateParticipant('lab', 'edsger', {
      metadata: 'on the bench',
      permission: { canPublish: false, canSubscribe: true, canPublishData: true },
    });
    await until('edsger’s tracks to be gone', () =>
      pages.ada.evaluate(() => window.seen.room.remoteParticipants.get('edsger').trackPublications.size === 0));
    assert.deepEqual(
      await pages.edsger.evaluate(() => {
        const { metadata, permissions } = window.seen.room.localParticipant;
        return [metadata, permissions.canPublish];
      }),
      ['on the bench', false],
    );
    await service.updateParticipant('lab', 'edsger', {
      permission: { canPublish: true, canSubscribe: true, canPublishData: true },
    });
    await until('edsger to know', () => pages.edsger.evaluate(() => window.seen.room.localParticipant.permissions.canPublish));
    await publish('edsger');
    await reaches('ada', ['edsger']);
    await reaches('grace', ['edsger']);
    await assert.rejects(service.getParticipant('lab', 'nobody'), (error) => error.code === 'not_found');
  });

  for (const scenario of ['signal-reconnect', 'resume-reconnect', 'full-reconnect', 'disconnect-signal-on-resume', 'migration']) {
    step(`${scenario}: they are all back`, async () => {
      for (const name of Object.keys(forms)) {
        await pages[name].evaluate(() => (window.seen.events.length = 0));
        await pages[name].evaluate((wanted) => window.seen.room.simulateScenario(wanted), scenario);
        await until(`${name} to be back`, () => pages[name].evaluate(() => window.seen.events.includes('Reconnected')));
        await until(`${name} to be connected`, () => pages[name].evaluate(() => window.seen.room.state === 'connected'));
      }
      await allReach();
    });
  }

  step('a restarted server is joined again', async () => {
    for (const page of Object.values(pages)) await page.evaluate(() => (window.seen.events.length = 0));
    await server.restart();
    for (const [name, page] of Object.entries(pages)) {
      await until(`${name} to be back`, () => page.evaluate(() => window.seen.events.includes('Reconnected')));
    }
    await allReach();
  });
});
