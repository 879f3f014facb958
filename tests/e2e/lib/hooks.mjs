// What runs inside a page before the page's own scripts: it taps what the browser plays, and can stand in for the
// microphone. It changes nothing of what the page does. Each function here is turned into text: no imports, no outer names.

/**
 * `window.viva`:
 * - `tracks`: every remote track with its stream id, in order of arrival; each audio track is recorded as it is *played*
 *   (after the jitter buffer), all on one AudioContext, thus on one clock;
 * - `people`: sid and identity of everybody that the server ever told of, read off the signalling socket; `joins` and
 *   `resumes` count its first messages;
 * - with `packets`, also every Opus packet as it *arrived*, before the jitter buffer;
 * - with `steady`, every audio receiver keeps a buffer of 200 ms: it then need not stretch time while it finds its size, and
 *   what is compared is what the network brought;
 * - with `microphone: 'cue'`, the microphone is a source that is silent until `say()` plays a WAV into it;
 * - with `microphone: 'plain'`, the browser's own microphone without its voice processing.
 */
export function hook({ microphone, packets, steady }) {
  if (window.viva || window !== window.top) return;
  const RATE = 48_000;
  const viva = (window.viva = { tracks: [], connections: [], said: [], people: [], joins: 0, resumes: 0 });

  const RECORDER = `registerProcessor('recorder', class extends AudioWorkletProcessor {
    constructor() { super(); this.block = new Float32Array(4800); this.filled = 0; }
    process([input]) {
      if (this.filled === 0) this.first = currentFrame;
      this.block.set(input[0] ?? new Float32Array(128), this.filled);
      this.filled += 128;
      if (this.filled + 128 > this.block.length) {
        this.port.postMessage({ first: this.first, samples: this.block.slice(0, this.filled) });
        this.filled = 0;
      }
      return true;
    }
  });`;
  const PACKETS = `const kept = [];
  // The last block of what comes with redundancy (RFC 2198): those before it came before.
  const opus = ({ mimeType, payloadType }, data) => {
    if (mimeType ? !/red$/i.test(mimeType) : payloadType !== 63) return data.slice(0);
    const bytes = new Uint8Array(data);
    let [at, before] = [0, 0];
    for (; bytes[at] & 0x80; at += 4) before += ((bytes[at + 2] & 3) << 8) | bytes[at + 3];
    return data.slice(at + 1 + before);
  };
  onrtctransform = ({ transformer }) => {
    const { track } = transformer.options;
    kept[track] = [];
    transformer.readable.pipeThrough(new TransformStream({ transform(frame, out) {
      const meta = frame.getMetadata();
      const data = opus(meta, frame.data);
      kept[track].push({ rtp: meta.rtpTimestamp, received: meta.receiveTime, at: performance.timeOrigin + performance.now(),
        size: data.byteLength, data });
      out.enqueue(frame);
    } })).pipeTo(transformer.writable).catch(() => {});
  };
  onmessage = ({ data: { track, port } }) => port.postMessage({ packets: kept[track] ?? [], origin: performance.timeOrigin });`;
  const script = (text) => URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));

  let starting;
  const audio = () =>
    (starting ??= (async () => {
      const context = new AudioContext({ sampleRate: RATE });
      await context.audioWorklet.addModule(script(RECORDER));
      await context.resume();
      return context;
    })());
  let worker;

  const record = async (entry, track) => {
    // Chromium lets a remote track flow into WebAudio only while an element plays it too.
    entry.element = new Audio();
    entry.element.muted = true;
    entry.element.srcObject = new MediaStream([track]);
    void entry.element.play().catch(() => {});
    const context = await audio();
    const node = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' });
    node.port.onmessage = ({ data }) => {
      // The earliest that a block came tells best when it was played.
      const late = performance.timeOrigin + performance.now() - ((data.first + data.samples.length) / RATE) * 1000;
      viva.clock = Math.min(viva.clock ?? Infinity, late);
      entry.blocks.push(data);
    };
    context.createMediaStreamSource(new MediaStream([track])).connect(node);
  };

  // A receiver is watched from its making on: set later, Chromium does not show its packets.
  const watched = [];
  const watch = (receiver) => {
    if (!packets || receiver.track.kind !== 'audio' || watched.includes(receiver)) return;
    worker ??= new Worker(script(PACKETS));
    receiver.transform = new RTCRtpScriptTransform(worker, { track: watched.push(receiver) - 1 });
  };

  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    addTransceiver(...args) {
      const transceiver = super.addTransceiver(...args);
      watch(transceiver.receiver);
      return transceiver;
    }
    constructor(...args) {
      super(...args);
      viva.connections.push(this);
      this.addEventListener('track', ({ track, streams, receiver }) => {
        const stream = streams[0]?.id ?? '';
        const old = viva.tracks.find((t) => t.receiver === receiver);
        if (old) return void old.streams.push(stream);
        const entry = { kind: track.kind, streams: [stream], blocks: [], receiver, track };
        viva.tracks.push(entry);
        if (track.kind !== 'audio') return;
        watch(receiver);
        if (steady) receiver.jitterBufferTarget = 200;
        void record(entry, track);
      });
    }
  };

  // ParticipantInfo begins with its sid (field 1) and identity (field 2); SignalResponse with the number of its message.
  const NativeSocket = window.WebSocket;
  window.WebSocket = class extends NativeSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener('message', ({ data }) => {
        if (!(data instanceof ArrayBuffer)) return;
        const text = String.fromCharCode(...new Uint8Array(data).subarray(0, 60_000));
        if (text.charCodeAt(0) === (1 << 3 | 2)) viva.joins++;
        if (text.charCodeAt(0) === 0x9a && text.charCodeAt(1) === 0x01) viva.resumes++;
        for (const match of text.matchAll(/\n(.)(PA_[\w-]+)/gs)) {
          const sid = match[2].slice(0, match[1].charCodeAt(0));
          const at = match.index + 2 + sid.length;
          if (text.charCodeAt(at) !== (2 << 3 | 2)) continue;
          const identity = text.slice(at + 2, at + 2 + text.charCodeAt(at + 1));
          if (!viva.people.some((p) => p.sid === sid)) viva.people.push({ sid, identity });
        }
      });
    }
  };

  const base64 = (bytes) => {
    let text = '';
    for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(text);
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  /** What was played of one track so far: 16-bit samples, and the Unix time in ms of the first. */
  viva.recording = (index) => {
    const { blocks } = viva.tracks[index];
    if (blocks.length === 0) return { samples: '', at: 0 };
    const first = blocks[0].first;
    const last = blocks.at(-1);
    const all = new Int16Array(last.first + last.samples.length - first);
    for (const block of blocks) {
      for (let i = 0; i < block.samples.length; i++) {
        all[block.first - first + i] = Math.max(-1, Math.min(1, block.samples[i])) * 32767;
      }
    }
    return { samples: base64(new Uint8Array(all.buffer)), at: viva.clock + (first / RATE) * 1000 };
  };

  /** Every packet of one track: RTP time, Unix time of arrival in ms, size, and the sound in it as 16-bit samples. */
  viva.packets = async (index) => {
    const channel = new MessageChannel();
    const answer = new Promise((resolve) => (channel.port1.onmessage = ({ data }) => resolve(data)));
    worker.postMessage({ track: watched.indexOf(viva.tracks[index].receiver), port: channel.port2 }, [channel.port2]);
    const { packets: list, origin } = await answer;
    const pcm = await decode(list.map((p) => p.data));
    return list.map((p, i) => ({
      rtp: p.rtp,
      at: p.received === undefined ? p.at : p.received + origin,
      seen: p.at,
      size: p.size,
      samples: base64(new Uint8Array(pcm[i].buffer)),
    }));
  };

  const decode = async (list) => {
    const out = [];
    const decoder = new AudioDecoder({
      output: (data) => {
        const samples = new Float32Array(data.numberOfFrames);
        data.copyTo(samples, { planeIndex: 0, format: 'f32-planar' });
        out[Math.round(data.timestamp / 20_000)] = Int16Array.from(samples, (s) => Math.max(-1, Math.min(1, s)) * 32767);
        data.close();
      },
      error: (error) => (viva.error = String(error)),
    });
    decoder.configure({ codec: 'opus', sampleRate: RATE, numberOfChannels: 1 });
    list.forEach((data, i) => {
      if (data.byteLength > 0) decoder.decode(new EncodedAudioChunk({ type: 'key', timestamp: i * 20_000, duration: 20_000, data }));
    });
    await decoder.flush();
    return list.map((_, i) => out[i] ?? new Int16Array(960));
  };

  // The microphone.
  const capture = navigator.mediaDevices?.getUserMedia?.bind(navigator.mediaDevices);
  let voice;
  const gain = async () => {
    const context = await audio();
    voice ??= new GainNode(context);
    return voice;
  };
  if (capture && microphone !== 'device') {
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      if (!wanted.audio) return capture(wanted);
      const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      if (microphone === 'plain') {
        return capture({ ...wanted, audio: { ...(wanted.audio === true ? {} : wanted.audio), ...raw } });
      }
      const source = await gain();
      const sink = new MediaStreamAudioDestinationNode(source.context, { channelCount: 1 });
      source.connect(sink);
      const stream = sink.stream;
      if (wanted.video) for (const track of (await capture({ video: wanted.video })).getTracks()) stream.addTrack(track);
      return stream;
    };
  }
  let playing;
  /** Says a WAV into the microphone; resolves when it is over or hushed. */
  viva.say = async (wav) => {
    const target = await gain();
    const buffer = await target.context.decodeAudioData(bytes(wav).buffer);
    const source = new AudioBufferSourceNode(target.context, { buffer });
    source.connect(target);
    playing = source;
    const over = new Promise((resolve) => (source.onended = resolve));
    source.start();
    viva.said.push({ from: Date.now() });
    await over;
    viva.said.at(-1).to = Date.now();
  };
  viva.hush = () => playing?.stop();

  /** Average colour and size of every picture that the page shows. */
  viva.pictures = () =>
    [...document.querySelectorAll('video')].map((video) => {
      const canvas = new OffscreenCanvas(8, 8);
      const context = canvas.getContext('2d');
      if (video.videoWidth) context.drawImage(video, 0, 0, 8, 8);
      const { data } = context.getImageData(0, 0, 8, 8);
      const sum = [0, 0, 0];
      for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sum[c] += data[i + c];
      return {
        identity: video.closest('[data-identity]')?.dataset.identity ?? '',
        width: video.videoWidth,
        height: video.videoHeight,
        colour: sum.map((s) => Math.round(s / (data.length / 4))),
      };
    });

  /** The inbound and outbound streams of every connection, from getStats. */
  viva.stats = async () => {
    const out = [];
    for (const connection of viva.connections) {
      if (connection.connectionState === 'closed') continue;
      for (const s of (await connection.getStats()).values()) {
        if (s.type === 'inbound-rtp' || s.type === 'outbound-rtp') out.push({ ...s, state: connection.connectionState });
      }
    }
    return out;
  };
}
