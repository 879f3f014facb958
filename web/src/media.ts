// Microphone, camera and speaker, outside of a call: what is there, whether it works, and what to do if not.

export type Device = 'microphone' | 'camera';
export type DeviceFault = 'denied' | 'missing' | 'busy' | 'insecure';

export function faultOf(error: unknown): DeviceFault {
  const name = error instanceof Error ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') return 'denied';
  if (name === 'NotFoundError' || name === 'OverconstrainedError') return 'missing';
  if (name === 'InsecureError') return 'insecure';
  return 'busy';
}

export function faultSentence(device: Device, fault: DeviceFault): string {
  switch (fault) {
    case 'denied':
      return `Your browser is not allowed to use the ${device}. Allow it in the address bar, then press Try again.`;
    case 'missing':
      return `No ${device} was found. Plug one in, then press Try again.`;
    case 'busy':
      return `The ${device} does not start. Close other programs that use it, then press Try again.`;
    case 'insecure':
      return `Your browser opens the ${device} only on a secure page. Open this page over https, or on localhost.`;
  }
}

function capture(constraints: MediaStreamConstraints): Promise<MediaStream> {
  // Missing on pages that are neither https nor localhost.
  if (!navigator.mediaDevices?.getUserMedia) {
    const error = new Error('mediaDevices is missing');
    error.name = 'InsecureError';
    return Promise.reject(error);
  }
  return navigator.mediaDevices.getUserMedia(constraints);
}

/** A remembered device that is gone is replaced by whatever there is. */
async function captureOne(kind: 'audio' | 'video', id: string): Promise<MediaStream> {
  const size = kind === 'video' ? { width: { ideal: 640 }, height: { ideal: 360 } } : {};
  try {
    return await capture({ [kind]: { ...size, ...(id ? { deviceId: { exact: id } } : {}) } });
  } catch (error) {
    if (id && faultOf(error) === 'missing') return capture({ [kind]: kind === 'video' ? size : true });
    throw error;
  }
}

export const openMicrophone = (id: string) => captureOne('audio', id);
export const openCamera = (id: string) => captureOne('video', id);

export function stop(stream: MediaStream | undefined): void {
  stream?.getTracks().forEach((track) => track.stop());
}

export async function listDevices(kind: MediaDeviceKind): Promise<MediaDeviceInfo[]> {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const all = await navigator.mediaDevices.enumerateDevices();
  // Without permission the browser lists nameless entries, which nobody can choose between.
  return all.filter((device) => device.kind === kind && device.deviceId);
}

/** Calls back some 30 times a second with the level of a track, 0..1; returns how to stop. */
export function watchLevel(track: MediaStreamTrack, onLevel: (level: number) => void): () => void {
  const context = new AudioContext();
  void context.resume().catch(() => undefined);
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  const source = context.createMediaStreamSource(new MediaStream([track]));
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    onLevel(loudness(Math.sqrt(sum / samples.length)));
  }, 33);
  return () => {
    clearInterval(timer);
    source.disconnect();
    void context.close().catch(() => undefined);
  };
}

/** RMS amplitude to what an ear would call 0..1: -60 dB and below is 0, -10 dB and above is 1. */
export function loudness(rms: number): number {
  if (rms <= 0) return 0;
  const db = 20 * Math.log10(rms);
  return Math.min(Math.max((db + 60) / 50, 0), 1);
}

type SinkContext = AudioContext & { setSinkId?: (id: string) => Promise<void> };

export const canChooseSpeaker = () => typeof AudioContext !== 'undefined' && 'setSinkId' in AudioContext.prototype;

/** Two soft notes through the chosen speaker. Resolves when they are over. */
export async function playChime(speaker: string): Promise<void> {
  const context: SinkContext = new AudioContext();
  try {
    if (speaker && context.setSinkId) await context.setSinkId(speaker).catch(() => undefined);
    await context.resume();
    const start = context.currentTime + 0.05;
    [523.25, 783.99].forEach((frequency, i) => {
      const at = start + i * 0.22;
      const tone = context.createOscillator();
      const gain = context.createGain();
      tone.frequency.value = frequency;
      gain.gain.setValueAtTime(0, at);
      gain.gain.linearRampToValueAtTime(0.22, at + 0.02);
      gain.gain.exponentialRampToValueAtTime(0.0001, at + 0.7);
      tone.connect(gain).connect(context.destination);
      tone.start(at);
      tone.stop(at + 0.75);
    });
    await new Promise((resolve) => setTimeout(resolve, 1100));
  } finally {
    void context.close().catch(() => undefined);
  }
}
