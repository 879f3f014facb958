// LiveKit's own browser SDK, unmodified, in both of its forms: one peer connection and two. Three people in a room see and
// hear each other, whatever happens to their connections.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { RoomServiceClient, TrackSource } from 'livekit-server-sdk';
import { COLOURS, launch, openPage } from '../lib/browser.mjs';
import { ROOT, VENV_PYTHON } from '../lib/paths.mjs';
import { start } from '../lib/process.mjs';
import { KEY, SECRET, serve, viva } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { until } from '../lib/wait.mjs';

const SDK = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');

const E2EE_WORKER = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.e2ee.worker.js');

/** Runs in the page: joins, and keeps what arrives where the story can read it. `key`: of end-to-end encryption. */
async function enter({ url, token, single, key, worker }) {
  const { ExternalE2EEKeyProvider, Room, RoomEvent } = window.LivekitClient;
  await window.seen?.room.disconnect();
  let e2ee;
  if (key) {
    const keyProvider = new ExternalE2EEKeyProvider();
    await keyProvider.setKey(key);
    e2ee = { keyProvider, worker: new Worker(URL.createObjectURL(new Blob([worker], { type: 'text/javascript' }))) };
  }
  const room = new Room({ singlePeerConnection: single, reconnectPolicy: { nextRetryDelayInMs: () => 200 }, e2ee });
  if (e2ee) await room.setE2EEEnabled(true);
  const seen = (window.seen = { room, events: [], texts: [], chats: [], files: [] });
  room.on(RoomEvent.ChatMessage, (message, who) => seen.chats.push([who?.identity, message.message]));
  room.registerByteStreamHandler('files', async (reader, { identity }) => {
    const bytes = (await reader.readAll()).reduce((sum, chunk) => sum + chunk.reduce((a, b) => a + b, 0), 0);
    seen.files.push([identity, reader.info.name, bytes]);
  });
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
    // All addresses: the Python SDK uses none of loopback.
    server = await serve('browser-sdk', { rtc: { advertise_ips: [] } });
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

  const token = async (name, room = 'lab') => {
    // Short, so that whatever takes longer needs the tokens that the server sends.
    const minted = await viva(['token', '--config', server.file, '--identity', name, '--room', room, '--ttl', '2m']);
    assert.equal(minted.code, 0, minted.text);
    return minted.text.trim().split('\n').at(-1);
  };
  const enters = async (name, { room, ...more } = {}) => {
    const page = pages[name];
    page.token = await token(name, room);
    return page.evaluate(enter, { url: server.base.replace('http', 'ws'), token: page.token, single: forms[name], ...more });
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
    const sids = [await enters('ada'), await enters('grace')];
    await publish('ada');
    await publish('grace');
    // The last one finds tracks that are there already.
    sids.push(await enters('edsger'));
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

  step('calls go both ways between browsers and a program', async () => {
    const names = Object.keys(forms);
    const args = ['--url', server.base.replace('http', 'ws'), '--token', await token('python'), '--to', names.join()];
    const python = start(VENV_PYTHON, [join(ROOT, 'tests/interop/calls.py'), ...args]);
    for (const name of names) {
      const answer = await until(`${name}’s call to be answered`, () =>
        pages[name].evaluate(() =>
          window.seen.room.localParticipant.performRpc({ destinationIdentity: 'python', method: 'echo', payload: 'xyz' })));
      assert.equal(answer, 'zyx');
    }
    assert.equal((await python.exit).code, 0, python.text());
    const { answers, calls } = JSON.parse(python.text().trim().split('\n').at(-1));
    assert.deepEqual(answers, Object.fromEntries(names.map((name) => [name, [...`for ${name}`].reverse().join('')])));
    assert.deepEqual(calls, names.sort());
  });

  step('who speaks is shown to all, and only as long', async () => {
    await pages.grace.evaluate(async () => {
      const context = new AudioContext();
      const tone = new OscillatorNode(context, { frequency: 300 });
      const out = context.createMediaStreamDestination();
      tone.connect(out);
      tone.start();
      window.seen.tone = out.stream.getAudioTracks()[0];
      await window.seen.room.localParticipant.publishTrack(window.seen.tone, { source: 'screen_share_audio' });
    });
    const speakers = (name) => pages[name].evaluate(() => window.seen.room.activeSpeakers.map((p) => p.identity).join());
    for (const name of Object.keys(forms)) await until(`${name} to see who speaks`, async () => (await speakers(name)) === 'grace');
    await pages.grace.evaluate(() => window.seen.room.localParticipant.unpublishTrack(window.seen.tone));
    for (const name of Object.keys(forms)) await until(`${name} to see silence`, async () => (await speakers(name)) === '');
  });

  step('each has a fresh token for the next time, which says the same', async () => {
    const claims = (text) => JSON.parse(Buffer.from(text.split('.')[1], 'base64url'));
    for (const [name, page] of Object.entries(pages)) {
      const fresh = await until(`${name}’s token to be refreshed`, async () => {
        const now = await page.evaluate(() => window.seen.room.engine.token);
        return now !== page.token && now;
      });
      const [before, after] = [claims(page.token), claims(fresh)];
      assert.deepEqual([after.sub, after.video.room, after.video.roomJoin], [before.sub, 'lab', true]);
      assert.ok(after.exp > Date.now() / 1000 + 300, 'good for minutes to come');
    }
  });

  step('chat, files and what people say of themselves reach everybody', async () => {
    await pages.ada.evaluate(async () => {
      const { localParticipant } = window.seen.room;
      await localParticipant.sendChatMessage('good morning');
      await localParticipant.sendFile(new File([new Uint8Array(100_000).fill(1)], 'cv.txt'), { topic: 'files' });
      await localParticipant.setAttributes({ mood: 'calm' });
      await localParticipant.setName('Countess');
    });
    for (const name of ['grace', 'edsger']) {
      const seen = () =>
        pages[name].evaluate(() => {
          const { chats, files, room } = window.seen;
          const ada = room.remoteParticipants.get('ada');
          return [...chats.flat(), ...files.flat(), ada.attributes.mood, ada.name, ada.connectionQuality];
        });
      const all = ['ada', 'good morning', 'ada', 'cv.txt', 100_000, 'calm', 'Countess', 'excellent'];
      await until(`all of it to reach ${name}`, async () => {
        assert.deepEqual(await seen(), all);
        return true;
      });
    }
  });

  step('a screen is shared beside the camera, and taken back', async () => {
    await pages.grace.evaluate(async () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      const paint = canvas.getContext('2d');
      setInterval(() => paint.fillRect(Math.random() * 1000, Math.random() * 600, 50, 50), 50);
      const [track] = canvas.captureStream(15).getVideoTracks();
      window.seen.screen = track;
      await window.seen.room.localParticipant.publishTrack(track, { source: 'screen_share', simulcast: false });
    });
    const shared = (name) =>
      pages[name].evaluate(() => {
        const publication = window.seen.room.remoteParticipants.get('grace').getTrackPublication('screen_share');
        return publication?.track?.attachedElements[0]?.videoWidth;
      });
    for (const name of ['ada', 'edsger']) await until(`the screen at ${name}`, async () => (await shared(name)) === 1280);
    await pages.grace.evaluate(() => window.seen.room.localParticipant.unpublishTrack(window.seen.screen));
    await until('the screen to go', async () => (await shared('ada')) === undefined);
    await reaches('ada', ['grace']);
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
    // There were never more than six at a time, though sixteen have come.
    assert.ok(sections <= 6, `${sections} sections`);
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

  step('who is to look for another path resumes, and never leaves', async () => {
    for (const name of Object.keys(forms)) {
      const sid = await pages[name].evaluate(() => window.seen.room.localParticipant.sid);
      await pages[name].evaluate(() => {
        window.seen.events.length = 0;
        // By hand: the SDK's own scenario joins anew by itself, whatever the server does.
        const scenario = { case: 'switchCandidateProtocol', value: 1 };
        return window.seen.room.engine.client.sendSimulateScenario({ scenario });
      });
      await until(`${name} to be back`, () => pages[name].evaluate(() => window.seen.events.includes('Reconnected')));
      assert.equal(await pages[name].evaluate(() => window.seen.room.localParticipant.sid), sid);
    }
    await allReach();
  });

  step('a restarted server is joined again', async () => {
    for (const page of Object.values(pages)) await page.evaluate(() => (window.seen.events.length = 0));
    await server.restart();
    for (const [name, page] of Object.entries(pages)) {
      await until(`${name} to be back`, () => page.evaluate(() => window.seen.events.includes('Reconnected')));
    }
    await allReach();
  });

  step('encrypted from end to end, only who has the key sees and hears', async () => {
    const worker = readFileSync(E2EE_WORKER, 'utf8');
    for (const [name, key] of [['ada', 'the key'], ['grace', 'the key'], ['edsger', 'another']]) {
      await enters(name, { room: 'secret', key, worker });
      await publish(name);
    }
    await reaches('ada', ['grace']);
    await reaches('grace', ['ada']);
    // It is sent to who has another key as well: the server cannot tell. Nothing of it can be decoded.
    await reaches('edsger', ['ada', 'grace'], ['audio']);
    const got = await pages.edsger.evaluate(received);
    assert.deepEqual([got.ada.width, got.grace.width], [0, 0]);
  });
});
