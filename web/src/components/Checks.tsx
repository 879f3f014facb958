// The three parts of the ready check. Each says what is wrong and the one thing that mends it.
import { useEffect, useState } from 'react';
import { initials } from '../format';
import { canChooseSpeaker, faultSentence, listDevices, playChime } from '../media';
import { setPrefs, usePrefs } from '../prefs';
import type { DeviceHandle } from '../useDevice';
import { DeviceSelect } from './DeviceSelect';
import { Icon } from './Icon';
import { LevelMeter } from './LevelMeter';
import { Notice } from './Notice';
import { VideoPreview } from './VideoPreview';

/** After so long without a sound, the page offers help. */
const SILENCE_MS = 6000;

export function MicrophoneCheck({ microphone }: { microphone: DeviceHandle }) {
  const [heard, setHeard] = useState(false);
  const [silent, setSilent] = useState(false);
  const track = microphone.stream?.getAudioTracks()[0];

  useEffect(() => {
    setHeard(false);
    setSilent(false);
    if (!track) return;
    const timer = setTimeout(() => setSilent(true), SILENCE_MS);
    return () => clearTimeout(timer);
  }, [track]);

  return (
    <section className="check" aria-labelledby="check-microphone">
      <h2 id="check-microphone">Microphone</h2>
      {microphone.fault ? (
        <Notice tone="trouble" action={{ label: 'Try again', onPress: microphone.retry }} testId="microphone-fault">
          {faultSentence('microphone', microphone.fault)}
        </Notice>
      ) : (
        <>
          <LevelMeter track={track} onHeard={() => setHeard(true)} />
          <p className="hint" role="status">
            {!track
              ? 'Your browser asks whether this page may use the microphone. Press Allow.'
              : heard
                ? 'We hear you.'
                : silent
                  ? 'We do not hear you yet. Say a few words, or choose another microphone.'
                  : 'Say a few words; the bar moves when you speak.'}
          </p>
          <DeviceSelect
            id="microphone"
            label="Microphone to use"
            devices={microphone.devices}
            value={microphone.chosen}
            onChange={microphone.choose}
          />
        </>
      )}
    </section>
  );
}

export function CameraCheck({
  camera,
  on,
  onToggle,
  name,
}: {
  camera: DeviceHandle;
  on: boolean;
  onToggle: (on: boolean) => void;
  name: string;
}) {
  return (
    <section className="check" aria-labelledby="check-camera">
      <h2 id="check-camera">Camera</h2>
      <div className="preview">
        {camera.stream ? (
          <VideoPreview stream={camera.stream} label="Your camera" />
        ) : (
          <span className="initials" aria-hidden="true">
            {initials(name)}
          </span>
        )}
      </div>
      <label className="switch-row">
        <input type="checkbox" role="switch" checked={on} onChange={(event) => onToggle(event.target.checked)} />
        <span>Join with the camera on</span>
      </label>
      {on && camera.fault && (
        <Notice tone="attention" action={{ label: 'Try again', onPress: camera.retry }} testId="camera-fault">
          {faultSentence('camera', camera.fault)} You can also join without it.
        </Notice>
      )}
      {on && !camera.fault && (
        <DeviceSelect
          id="camera"
          label="Camera to use"
          devices={camera.devices}
          value={camera.chosen}
          onChange={camera.choose}
        />
      )}
    </section>
  );
}

export function SpeakerCheck() {
  const { speaker } = usePrefs();
  const [playing, setPlaying] = useState(false);
  const [played, setPlayed] = useState(false);
  const [answer, setAnswer] = useState<boolean>();
  const [speakers, setSpeakers] = useState<MediaDeviceInfo[]>([]);

  const play = async () => {
    setPlaying(true);
    setAnswer(undefined);
    try {
      await playChime(speaker);
    } finally {
      setPlaying(false);
      setPlayed(true);
    }
    // Only now: before the microphone is allowed the list has no names.
    if (canChooseSpeaker()) setSpeakers(await listDevices('audiooutput'));
  };

  return (
    <section className="check" aria-labelledby="check-speaker">
      <h2 id="check-speaker">Speaker</h2>
      <div className="row">
        <button type="button" className="secondary" disabled={playing} onClick={() => void play()}>
          <Icon name="speaker" />
          {playing ? 'Playing…' : played ? 'Play it again' : 'Play a sound'}
        </button>
        {played && !playing && answer === undefined && (
          <div className="row" role="group" aria-label="Did you hear it?">
            <span>Did you hear it?</span>
            <button type="button" className="secondary" onClick={() => setAnswer(true)}>
              Yes
            </button>
            <button type="button" className="secondary" onClick={() => setAnswer(false)}>
              No
            </button>
          </div>
        )}
      </div>
      <p className="hint" role="status">
        {answer === true && 'Good. You will hear the interviewer the same way.'}
        {answer === false && 'Turn the volume up or plug in headphones, then play it again.'}
      </p>
      {answer === false && speakers.length > 1 && (
        <DeviceSelect
          id="speaker"
          label="Speaker to use"
          devices={speakers}
          value={speaker || 'default'}
          onChange={(id) => setPrefs({ speaker: id })}
        />
      )}
    </section>
  );
}
