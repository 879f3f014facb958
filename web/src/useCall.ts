// One place in one call: connects, keeps captions, says in words what is wrong.
import { Room, RoomEvent, VideoPresets, type DisconnectReason } from 'livekit-client';
import { useCallback, useEffect, useReducer, useRef, useState } from 'react';
import { reduceCaptions, type Caption } from './captions';
import { failureOfConnect, failureOfDisconnect, isSaidByServer, type Failure } from './failures';
import { faultOf, faultSentence, type Device } from './media';
import { prefs } from './prefs';
import { signalUrl, type Call } from './session';

export type CallStatus = 'joining' | 'live' | 'reconnecting' | 'failed' | 'left';

const TRANSCRIPTION_TOPIC = 'lk.transcription';

function createRoom(): Room {
  const { microphone, camera, speaker } = prefs();
  return new Room({
    audioCaptureDefaults: { deviceId: microphone || undefined },
    videoCaptureDefaults: { deviceId: camera || undefined, resolution: VideoPresets.h360.resolution },
    audioOutput: speaker ? { deviceId: speaker } : undefined,
    // The server forwards one layer of VP8 to everybody.
    publishDefaults: { simulcast: false, videoCodec: 'vp8', red: false },
  });
}

export interface DeviceProblem {
  device: Device;
  text: string;
}

export interface CallHandle {
  room: Room;
  status: CallStatus;
  failure?: Failure;
  captions: Caption[];
  /** Why the own microphone or camera is off although it was wanted. */
  deviceProblem?: DeviceProblem;
  setDevice: (device: Device, on: boolean) => Promise<void>;
  connect: () => Promise<void>;
  leave: () => Promise<void>;
}

export function useCall(call: Call): CallHandle {
  const [room] = useState(createRoom);
  const [status, setStatus] = useState<CallStatus>('joining');
  const [failure, setFailure] = useState<Failure>();
  const [deviceProblem, setDeviceProblem] = useState<DeviceProblem>();
  const [captions, caption] = useReducer(reduceCaptions, []);
  const connecting = useRef(false);

  const setDevice = useCallback(
    async (device: Device, on: boolean) => {
      try {
        setDeviceProblem(undefined);
        if (device === 'microphone') await room.localParticipant.setMicrophoneEnabled(on);
        else await room.localParticipant.setCameraEnabled(on);
      } catch (error) {
        setDeviceProblem({ device, text: faultSentence(device, faultOf(error)) });
      }
    },
    [room],
  );

  const connect = useCallback(async () => {
    if (connecting.current) return;
    connecting.current = true;
    setFailure(undefined);
    setStatus('joining');
    try {
      await room.connect(signalUrl(call.url, location), call.token);
      setStatus('live');
    } catch (error) {
      setFailure((told) => told ?? failureOfConnect(error));
      setStatus('failed');
      return;
    } finally {
      // Before the devices: a call that ends while they open says so by its own event.
      connecting.current = false;
    }
    await setDevice('microphone', true);
    if (prefs().cameraOn) await setDevice('camera', true);
  }, [call.token, call.url, room, setDevice]);

  const leave = useCallback(async () => {
    setStatus('left');
    await room.disconnect();
  }, [room]);

  useEffect(() => {
    const onReconnecting = () => setStatus('reconnecting');
    const onReconnected = () => setStatus('live');
    const onDisconnected = (reason?: DisconnectReason) => {
      // While connecting, the rejected promise knows more, unless the server itself said why.
      if (connecting.current && !isSaidByServer(reason)) return;
      const why = failureOfDisconnect(reason);
      setFailure(why);
      setStatus(why ? 'failed' : 'left');
    };
    room
      .on(RoomEvent.Reconnecting, onReconnecting)
      .on(RoomEvent.SignalReconnecting, onReconnecting)
      .on(RoomEvent.Reconnected, onReconnected)
      .on(RoomEvent.Disconnected, onDisconnected);

    room.registerTextStreamHandler(TRANSCRIPTION_TOPIC, async (reader, { identity }) => {
      const stream = reader.info.id;
      const segment = reader.info.attributes?.['lk.segment_id'] ?? stream;
      let text = '';
      const update = () =>
        caption({ segment, stream, identity, text, final: reader.info.attributes?.['lk.transcription_final'] === 'true' });
      try {
        for await (const chunk of reader) {
          text += chunk;
          update();
        }
      } catch {
        // The stream broke off, with its sender perhaps: what came stays on screen.
      }
      // The trailer may have said that this was final.
      update();
    });

    void connect();
    return () => {
      room
        .off(RoomEvent.Reconnecting, onReconnecting)
        .off(RoomEvent.SignalReconnecting, onReconnecting)
        .off(RoomEvent.Reconnected, onReconnected)
        .off(RoomEvent.Disconnected, onDisconnected);
      room.unregisterTextStreamHandler(TRANSCRIPTION_TOPIC);
      void room.disconnect();
    };
  }, [connect, room]);

  return {
    room,
    status,
    failure,
    captions,
    deviceProblem,
    setDevice,
    connect,
    leave,
  };
}
