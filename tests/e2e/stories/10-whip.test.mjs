// WHIP and WHEP as browsers speak them, by plain peer connections and fetch, and as an encoder does that nobody here
// wrote: Debian's whip-client, on GStreamer. A LiveKit client is in the same room.
import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { COLOURS, launch, openPage } from '../lib/browser.mjs';
import { output, ROOT, TOOLS } from '../lib/paths.mjs';
import { must, start } from '../lib/process.mjs';
import { serve, viva } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { Hopeless, until } from '../lib/wait.mjs';

const SDK = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');

/** Runs in the page: opens a session, whose parts stay in `window.session`. */
async function open({ url, token, sends }) {
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const session = (window.session = { pc, token, streams: [] });
  if (sends) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
    for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
  } else {
    for (const kind of ['audio', 'video']) pc.addTransceiver(kind, { direction: 'recvonly' });
    const element = document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, autoplay: true }));
    pc.ontrack = ({ streams }) => {
      session.streams.push(streams[0].id);
      element.srcObject = streams[0];
    };
  }
  await pc.setLocalDescription();
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp', authorization: `Bearer ${token}` },
    body: pc.localDescription.sdp,
  });
  if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
  session.answer = await response.text();
  session.etag = response.headers.get('etag');
  session.location = new URL(response.headers.get('location'), url).href;
  await pc.setRemoteDescription({ type: 'answer', sdp: session.answer });
  return { location: session.location, etag: session.etag };
}

/** Runs in the page: an ICE restart, as RFC 9725 has it. Gives the new ETag. */
async function restart() {
  const { session } = window;
  session.pc.restartIce();
  await session.pc.setLocalDescription();
  const lines = session.pc.localDescription.sdp.split('\r\n');
  const fragment = lines.filter((line) => /^(a=ice-|a=mid:|m=|a=group:BUNDLE)/.test(line)).join('\r\n') + '\r\n';
  const response = await fetch(session.location, {
    method: 'PATCH',
    headers: {
      'content-type': 'application/trickle-ice-sdpfrag',
      'if-match': '*',
      authorization: `Bearer ${session.token}`,
    },
    body: fragment,
  });
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  const answer = await response.text();
  const credential = (name) => answer.match(new RegExp(`^a=ice-${name}:.*$`, 'm'))[0].trim();
  session.answer = session.answer
    .replace(/^a=ice-ufrag:.*$/gm, credential('ufrag'))
    .replace(/^a=ice-pwd:.*$/gm, credential('pwd'));
  await session.pc.setRemoteDescription({ type: 'answer', sdp: session.answer });
  return response.headers.get('etag');
}

/** Runs in the page: what it plays now: {audio, video} as packets received and pictures decoded. */
async function played() {
  const counts = { audio: 0, video: 0 };
  for (const stat of (await window.session.pc.getStats()).values()) {
    if (stat.type === 'inbound-rtp') counts[stat.kind] += stat.kind === 'video' ? stat.framesDecoded : stat.packetsReceived;
  }
  return counts;
}

/** Runs in the page: joins as a LiveKit client. */
async function enter({ url, token }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = (window.room = new Room());
  room.on(RoomEvent.TrackSubscribed, (track) => document.body.append(Object.assign(track.attach(), { muted: true })));
  await room.connect(url, token);
}

/** Runs in the page: what the LiveKit client gets of a person, and which tracks that person has. */
async function received(identity) {
  const person = window.room.remoteParticipants.get(identity);
  if (!person) return undefined;
  const result = { audio: 0, video: 0, sources: [], width: 0 };
  for (const { track, source } of person.trackPublications.values()) {
    result.sources.push(source);
    for (const stat of (await track?.receiver?.getStats())?.values() ?? []) {
      if (stat.type !== 'inbound-rtp') continue;
      result[stat.kind] += stat.kind === 'video' ? stat.framesDecoded : stat.packetsReceived;
      if (stat.kind === 'video') result.width = stat.frameWidth ?? 0;
    }
  }
  return result;
}

/** An address of this machine beside loopback, which GStreamer's ICE leaves out. */
const ADDRESS = Object.values(networkInterfaces()).flat().find((it) => it.family === 'IPv4' && !it.internal)?.address;
const AUDIO = 'audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! opusenc ! rtpopuspay pt=100 ssrc=1'
  + ' ! application/x-rtp,media=audio,encoding-name=OPUS,payload=100';
const VIDEO = 'videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 ! videoconvert'
  + ' ! vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay pt=96 ssrc=2'
  + ' ! application/x-rtp,media=video,encoding-name=VP8,payload=96';

/** Starts Debian's WHIP client with a test picture and sound. */
async function startEncoder(url, token) {
  const shim = join(output('e2e', 'shim'), 'libgupnp-igd-1.0.so.4');
  await must('cc', ['-shared', '-fPIC', '-Wl,-soname,libgupnp-igd-1.0.so.4', '-o', shim, join(TOOLS, 'whip-client-shim.c')]);
  const args = ['--url', url, '--token', token, '--audio', AUDIO, '--video', VIDEO, '--disable-colors'];
  return start('whip-client', args, { env: { LD_PRELOAD: shim } });
}

describe('WHIP and WHEP', () => {
  let server, endpoint, encoder;
  const browsers = [];
  const pages = {};
  const step = steps('whip', () => ({ server, ...pages }));

  before(async () => {
    server = await serve('whip', { rtc: { advertise_ips: ['127.0.0.1', ADDRESS].filter(Boolean) } });
    // Another origin than the pages': what they read of the answers, they are allowed to read.
    endpoint = server.base.replace('localhost', '127.0.0.1');
    // A camera is opened in two of these pages: each in a browser of its own.
    for (const [colour, names] of [[COLOURS.ada, ['ada', 'player']], [COLOURS.grace, ['encoder', 'early']]]) {
      const browser = await launch({ colour });
      browsers.push(browser);
      for (const name of names) {
        pages[name] = await openPage(browser, { microphone: 'plain' });
        await pages[name].goto(server.base);
      }
    }
    await pages.ada.addScriptTag({ path: SDK });
  });
  after(async () => {
    await encoder?.stop('SIGKILL');
    for (const browser of browsers) await browser.close();
    await server?.stop();
  });

  const token = async (identity) => {
    const minted = await viva(['token', '--config', server.file, '--identity', identity, '--room', 'lab']);
    assert.equal(minted.code, 0, minted.text);
    return minted.text.trim().split('\n').at(-1);
  };
  const session = async (name, path, sends) =>
    pages[name].evaluate(open, { url: endpoint + path, token: await token(name), sends });
  const flows = async (what, count) => {
    const before = (await count()) ?? { audio: 0, video: 0 };
    await until(what, async () => {
      const now = await count();
      return now && now.audio > before.audio + 25 && now.video > before.video + 5;
    }, { every: 300 });
  };
  const adaGets = (identity) => flows(`ada to receive ${identity}`, () => pages.ada.evaluate(received, identity));
  const plays = (name) => flows(`${name} to play`, () => pages[name].evaluate(played));

  step('a player may come before anybody publishes', async () => {
    const { location } = await session('early', '/whep/v1?participant=ada', false);
    assert.match(location, /\/whep\/v1\/PA_/);
    await pages.ada.evaluate(enter, { url: server.base.replace('http', 'ws'), token: await token('ada') });
  });

  step('a page publishes by WHIP, and a LiveKit client sees it as a microphone and a camera', async () => {
    const { location, etag } = await session('encoder', '/whip/v1', true);
    assert.match(location, /^http:\/\/127\.0\.0\.1:\d+\/whip\/v1\/PA_/);
    assert.match(etag, /^"[^"]+"$/);
    await adaGets('encoder');
    const { sources, width } = await pages.ada.evaluate(received, 'encoder');
    assert.deepEqual(sources.sort(), ['camera', 'microphone']);
    assert.ok(width >= 160, `${width}`);
  });

  step('a page plays it by WHEP, as one stream, and is seen by those in the room', async () => {
    await session('player', '/whep/v1', false);
    await plays('player');
    const streams = await pages.player.evaluate(() => window.session.streams);
    assert.equal(new Set(streams).size, 1, streams.join());
    assert.ok(await pages.ada.evaluate(() => window.room.remoteParticipants.has('player')));
  });

  step('who waited gets the tracks that came later, on the sections that it had', async () => {
    assert.deepEqual(await pages.early.evaluate(played), { audio: 0, video: 0 });
    await pages.ada.evaluate(() => window.room.localParticipant.enableCameraAndMicrophone());
    await plays('early');
  });

  step('an ICE restart on either side keeps sound and picture', async () => {
    for (const name of ['encoder', 'player']) {
      const before = await pages[name].evaluate(() => window.session.etag);
      assert.notEqual(await pages[name].evaluate(restart), before);
      await until(`${name} to be connected`, () => pages[name].evaluate(() => window.session.pc.connectionState === 'connected'));
      await adaGets('encoder');
      await plays('player');
    }
  });

  step('a player gets the next publisher when the first one closes its connection', async () => {
    await pages.encoder.evaluate(() => window.session.pc.close());
    await until('the encoder to be gone', () => pages.ada.evaluate(() => !window.room.remoteParticipants.has('encoder')));
    await plays('player');
  });

  step('a session ends by DELETE', async () => {
    const end = (name) =>
      pages[name].evaluate(async () => {
        const { location, token } = window.session;
        return (await fetch(location, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })).status;
      });
    assert.equal(await end('player'), 200);
    assert.equal(await end('early'), 200);
    assert.equal(await end('encoder'), 404, 'its closed connection was its end');
    await until('both to be gone', () => pages.ada.evaluate(() => window.room.remoteParticipants.size === 0));
    for (const [protocol, joins] of [['whip', 1], ['whep', 2]]) {
      assert.equal(await server.metric(`viva_participant_joins_total{protocol="${protocol}",result="ok"}`), joins);
      assert.equal(await server.metric(`viva_join_duration_seconds_count{protocol="${protocol}"}`), joins);
    }
  });

  step('an encoder on GStreamer publishes, trickles its candidates, and leaves by DELETE', async (t) => {
    if (!ADDRESS) return t.skip('this machine has no address beside loopback');
    encoder = await startEncoder(`${endpoint}/whip/v1`, await token('gstreamer'));
    await until('the encoder to connect', () => {
      if (encoder.ended()) throw new Hopeless(`the encoder ended: ${encoder.text()}`);
      return /ICE (connected|completed)/.test(encoder.text());
    });
    await adaGets('gstreamer');
    const { sources, width } = await pages.ada.evaluate(received, 'gstreamer');
    assert.deepEqual([...sources.sort(), width], ['camera', 'microphone', 320]);
    await session('player', '/whep/v1?participant=gstreamer', false);
    await plays('player');
    const status = (method, code) =>
      server.metric(`viva_http_request_duration_seconds_count{method="${method}",route="/whip/v1/{session}",status="${code}"}`);
    assert.ok((await status('PATCH', 204)) > 0, 'it trickled');
    const deleted = await status('DELETE', 200);
    await encoder.stop('SIGINT');
    await until('the encoder to be gone', () => pages.ada.evaluate(() => !window.room.remoteParticipants.has('gstreamer')));
    assert.equal(await status('DELETE', 200), deleted + 1);
  });
});
