// A microphone or camera outside of the call: opened while wanted, closed when the screen goes.
import { useCallback, useEffect, useState } from 'react';
import { faultOf, listDevices, openCamera, openMicrophone, stop, type Device, type DeviceFault } from './media';
import { prefs, setPrefs } from './prefs';

export interface DeviceHandle {
  stream?: MediaStream;
  fault?: DeviceFault;
  devices: MediaDeviceInfo[];
  chosen: string;
  choose: (id: string) => void;
  retry: () => void;
}

export function useDevice(device: Device, wanted: boolean): DeviceHandle {
  const [stream, setStream] = useState<MediaStream>();
  const [fault, setFault] = useState<DeviceFault>();
  const [devices, setDevices] = useState<MediaDeviceInfo[]>([]);
  const [chosen, setChosen] = useState(() => prefs()[device]);
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    if (!wanted) return;
    let current = true;
    let opened: MediaStream | undefined;
    setFault(undefined);
    (device === 'microphone' ? openMicrophone : openCamera)(chosen).then(
      async (result) => {
        opened = result;
        if (!current) return stop(result);
        setStream(result);
        setDevices(await listDevices(device === 'microphone' ? 'audioinput' : 'videoinput'));
      },
      (error) => current && setFault(faultOf(error)),
    );
    return () => {
      current = false;
      stop(opened);
      setStream(undefined);
    };
  }, [attempt, chosen, device, wanted]);

  const choose = useCallback(
    (id: string) => {
      setPrefs({ [device]: id });
      setChosen(id);
    },
    [device],
  );

  return {
    stream,
    fault,
    devices,
    chosen: stream?.getTracks()[0]?.getSettings().deviceId ?? chosen,
    choose,
    retry: () => setAttempt((n) => n + 1),
  };
}
