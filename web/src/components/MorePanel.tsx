// Everything that is not needed at every moment.
import type { Room } from 'livekit-client';
import { useEffect, useState } from 'react';
import { canChooseSpeaker, listDevices } from '../media';
import { CAPTION_SIZES, setPrefs, stepCaptionSize, usePrefs, type Theme } from '../prefs';
import { DeviceSelect } from './DeviceSelect';
import { Dialog } from './Dialog';
import { InviteLink } from './InviteLink';

export function MorePanel({
  room,
  invitePath,
  canAnswer,
  canShareHere,
  onRepeat,
  onShare,
  onEnd,
  onClose,
}: {
  room: Room;
  invitePath?: string;
  canAnswer: boolean;
  /** The row of controls has no room for sharing on a phone. */
  canShareHere: boolean;
  onRepeat: () => void;
  onShare: () => void;
  onEnd: () => void;
  onClose: () => void;
}) {
  const prefs = usePrefs();
  const [ending, setEnding] = useState(false);
  return (
    <Dialog title="More" onClose={onClose}>
      <div className="row more-actions">
        {canAnswer && (
          <button type="button" className="secondary" onClick={onRepeat}>
            Repeat the question
          </button>
        )}
        {canShareHere && (
          <button type="button" className="secondary only-narrow" onClick={onShare}>
            Share your screen
          </button>
        )}
      </div>

      <section aria-labelledby="more-captions">
        <h3 id="more-captions">Captions</h3>
        <label className="switch-row">
          <input
            type="checkbox"
            role="switch"
            checked={prefs.captions}
            onChange={(event) => setPrefs({ captions: event.target.checked })}
          />
          <span>Show captions</span>
        </label>
        <div className="row" role="group" aria-label="Size of the captions">
          <button
            type="button"
            className="secondary"
            aria-label="Smaller captions"
            disabled={prefs.captionSize <= CAPTION_SIZES[0]}
            onClick={() => setPrefs({ captionSize: stepCaptionSize(prefs.captionSize, -1) })}
          >
            A−
          </button>
          <output aria-live="polite">{prefs.captionSize} px</output>
          <button
            type="button"
            className="secondary"
            aria-label="Larger captions"
            disabled={prefs.captionSize >= CAPTION_SIZES[CAPTION_SIZES.length - 1]!}
            onClick={() => setPrefs({ captionSize: stepCaptionSize(prefs.captionSize, 1) })}
          >
            A+
          </button>
        </div>
      </section>

      {invitePath && (
        <section aria-labelledby="more-invite">
          <h3 id="more-invite">Invite a second person</h3>
          <InviteLink path={invitePath} />
        </section>
      )}

      <section aria-labelledby="more-devices">
        <h3 id="more-devices">Devices</h3>
        <Devices room={room} />
      </section>

      <section aria-labelledby="more-colours">
        <h3 id="more-colours">Colours</h3>
        <div className="segments" role="radiogroup" aria-labelledby="more-colours">
          {(['system', 'light', 'dark'] as Theme[]).map((theme) => (
            <label key={theme}>
              <input
                type="radio"
                name="theme"
                checked={prefs.theme === theme}
                onChange={() => setPrefs({ theme })}
              />
              <span>{theme === 'system' ? 'As the system' : theme === 'light' ? 'Light' : 'Dark'}</span>
            </label>
          ))}
        </div>
      </section>

      <section aria-labelledby="more-keys">
        <h3 id="more-keys">Keys</h3>
        <p className="hint">
          {canAnswer && (
            <>
              <kbd>Space</kbd> I'm done, <kbd>T</kbd> I'm thinking,{' '}
            </>
          )}
          <kbd>M</kbd> microphone on or off
        </p>
      </section>

      <section className="more-end">
        {ending ? (
          <div className="stack-8">
            <p>End the interview for everybody? It cannot be taken up again.</p>
            <div className="row">
              <button type="button" className="danger" onClick={onEnd}>
                End it for everybody
              </button>
              <button type="button" className="secondary" onClick={() => setEnding(false)}>
                Go on
              </button>
            </div>
          </div>
        ) : (
          <button type="button" className="secondary" onClick={() => setEnding(true)}>
            End the interview
          </button>
        )}
      </section>
    </Dialog>
  );
}

const KINDS = [
  { kind: 'audioinput', pref: 'microphone', label: 'Microphone' },
  { kind: 'videoinput', pref: 'camera', label: 'Camera' },
  { kind: 'audiooutput', pref: 'speaker', label: 'Speaker' },
] as const;

function Devices({ room }: { room: Room }) {
  const [lists, setLists] = useState<Partial<Record<MediaDeviceKind, MediaDeviceInfo[]>>>({});
  const [active, setActive] = useState<Partial<Record<MediaDeviceKind, string>>>({});
  const [error, setError] = useState<string>();

  useEffect(() => {
    let current = true;
    const load = async () => {
      const found: Partial<Record<MediaDeviceKind, MediaDeviceInfo[]>> = {};
      for (const { kind } of KINDS) found[kind] = await listDevices(kind);
      if (current) setLists(found);
    };
    void load();
    navigator.mediaDevices?.addEventListener('devicechange', load);
    return () => {
      current = false;
      navigator.mediaDevices?.removeEventListener('devicechange', load);
    };
  }, []);

  return (
    <>
      {KINDS.filter(({ kind }) => kind !== 'audiooutput' || canChooseSpeaker()).map(({ kind, pref, label }) => (
        <DeviceSelect
          key={kind}
          id={`room-${pref}`}
          label={label}
          devices={lists[kind] ?? []}
          value={active[kind] ?? room.getActiveDevice(kind) ?? 'default'}
          onChange={(id) => {
            setError(undefined);
            room.switchActiveDevice(kind, id).then(
              () => {
                setActive((old) => ({ ...old, [kind]: id }));
                setPrefs({ [pref]: id });
              },
              () => setError(`The ${label.toLowerCase()} does not start. Choose another one.`),
            );
          }}
        />
      ))}
      {error && (
        <p className="field-error" role="alert">
          {error}
        </p>
      )}
    </>
  );
}
