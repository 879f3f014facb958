// A call by `livekit-client` on an empty page: for stories of what is below it.
import { join } from 'node:path';
import { ROOT } from './paths.mjs';

/** What a page needs before it can enter. */
export const SDK = join(ROOT, 'web/node_modules/livekit-client/dist/livekit-client.umd.js');

/**
 * Runs in the page: joins and speaks; how long until the connection stood, ms. `relays`: a text that the addresses of
 * relays to be used have in them, of those that the server tells.
 */
export async function enter({ url, token, single, relays }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const Native = window.RTCPeerConnection;
  window.connections = [];
  const chosen = (configuration) => {
    const iceServers = configuration?.iceServers?.map((server) => {
      return { ...server, urls: [server.urls].flat().filter((address) => address.includes(relays ?? '')) };
    });
    return iceServers ? { ...configuration, iceServers } : configuration;
  };
  window.RTCPeerConnection = class extends Native {
    constructor(configuration, ...others) {
      super(chosen(configuration), ...others);
      window.connections.push(this);
    }

    setConfiguration(configuration) {
      super.setConfiguration(chosen(configuration));
    }
  };
  const room = (window.room = new Room({ singlePeerConnection: single }));
  room.on(RoomEvent.TrackSubscribed, (track) => document.body.append(track.attach()));
  window.began = performance.now();
  await room.connect(url, token);
  const took = performance.now() - window.began;
  // The browser's microphone is silent: without this it would send next to nothing.
  await room.localParticipant.setMicrophoneEnabled(true, undefined, { dtx: false });
  return took;
}

/** Runs in the page: sound received so far, in packets, and the paths in use. */
export async function look() {
  const seen = { packets: 0, paths: [] };
  for (const connection of window.connections) {
    const stats = await connection.getStats();
    for (const stat of stats.values()) {
      if (stat.type === 'inbound-rtp' && stat.kind === 'audio') seen.packets += stat.packetsReceived;
      if (stat.type !== 'transport' || !stat.selectedCandidatePairId) continue;
      const pair = stats.get(stat.selectedCandidatePairId);
      const { candidateType, protocol, relayProtocol, url } = stats.get(pair.localCandidateId);
      seen.paths.push({ candidateType, protocol, relayProtocol, url, remotePort: stats.get(pair.remoteCandidateId).port });
    }
  }
  return seen;
}

/** Runs in the page: when the first sound had come, ms since it began to enter. */
export async function firstSound() {
  for (;;) {
    const reports = await Promise.all(window.connections.map((connection) => connection.getStats()));
    const all = reports.flatMap((report) => [...report.values()]);
    if (all.some((stat) => stat.type === 'inbound-rtp' && stat.kind === 'audio' && stat.packetsReceived > 0)) {
      return performance.now() - window.began;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
