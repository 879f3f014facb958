// The room: who is here, what is asked, what is said, and one row of controls.
import { useLocalParticipant, useStartAudio } from '@livekit/components-react';
import { useCallback, useEffect, useRef, useState, type MouseEvent } from 'react';
import { api } from '../api';
import { ringState, type Progress } from '../interviewer';
import { setPrefs, usePrefs } from '../prefs';
import { navigate } from '../router';
import type { Call } from '../session';
import type { CallHandle } from '../useCall';
import { useConsents } from '../useConsents';
import { useInterviewer } from '../useInterviewer';
import { useRecordedEnd } from '../useRecordedEnd';
import { useWakeLock } from '../useWakeLock';
import { useShortcuts } from '../useShortcuts';
import { Badges } from './Badges';
import { Captions } from './Captions';
import { ConsentPanel } from './ConsentPanel';
import { Controls } from './Controls';
import { Icon } from './Icon';
import { Dialog } from './Dialog';
import { InviteLink } from './InviteLink';
import { MorePanel } from './MorePanel';
import { nameOf, Stage } from './Stage';
import { RoomNotices } from './RoomNotices';
import { ThemeSwitch } from './ThemeSwitch';

/** How long a passing word stays on screen. */
const WORD_MS = 5000;
/** After the interviewer has left and nobody else is here, the transcript opens by itself. */
const CLOSE_AFTER_MS = 4000;

/**
 * A press by mouse or finger leaves no focus behind: Space shall go on to mean "I'm done", not that button again.
 * `detail` is 0 where the keyboard pressed.
 */
function leaveNoFocus(event: MouseEvent) {
  if (event.detail === 0 || !(event.target instanceof Element) || event.target.closest('dialog')) return;
  event.target.closest('button')?.blur();
}

type Panel = 'consent' | 'more' | 'invite';

export function RoomView({ call, handle }: { call: Call; handle: CallHandle }) {
  const { room, status, captions, setDevice, leave } = handle;
  const { captionSize, captions: captionsOn, hintsSeen } = usePrefs();
  const { interviewer, people } = useInterviewer();
  const local = useLocalParticipant();
  const { consents, known, error, change } = useConsents(call, room, interviewer.participant);
  useWakeLock();
  const sound = useStartAudio({ room, props: {} });
  const [panel, setPanel] = useState<Panel>();
  const [word, setWord] = useState('');
  const names = useRef(new Map<string, string>());

  const answering = call.role === 'interviewee';
  const ring = status === 'joining' ? 'joining' : ringState(interviewer.attributes, !answering || local.isMicrophoneEnabled);
  const canShare = typeof navigator.mediaDevices?.getDisplayMedia === 'function';

  useEffect(() => {
    document.title = `${call.planTitle} · Viva`;
  }, [call.planTitle]);

  useEffect(() => {
    if (!word) return;
    const timer = setTimeout(() => setWord(''), WORD_MS);
    return () => clearTimeout(timer);
  }, [word]);

  const recorded = useRecordedEnd(call, status === 'live' && !interviewer.present);
  const over = Boolean(interviewer.ended) || recorded;
  const alone = people.length === 0;
  useEffect(() => {
    if (!over || interviewer.present || !alone) return;
    const timer = setTimeout(() => void leave(), CLOSE_AFTER_MS);
    return () => clearTimeout(timer);
  }, [alone, interviewer.present, leave, over]);

  const identity = interviewer.participant?.identity;
  const ask = useCallback(
    async (method: string, said: string) => {
      if (!identity) return setWord('The interviewer is not here at the moment.');
      try {
        await room.localParticipant.performRpc({
          destinationIdentity: identity,
          method,
          payload: '{}',
          responseTimeout: 5000,
        });
        setWord(said);
      } catch {
        setWord('The interviewer did not take that. Press it again.');
      }
    },
    [identity, room],
  );

  const actions = {
    microphone: () => void setDevice('microphone', !local.isMicrophoneEnabled),
    thinking: () => void ask('viva.thinking', 'Take your time. The interviewer waits.'),
    done: () => void ask('viva.done', 'Your answer is complete.'),
    share: () =>
      void room.localParticipant.setScreenShareEnabled(!local.isScreenShareEnabled).catch(() => {
        // Cancelled in the browser's own dialog: nothing is to be said.
      }),
  };
  useShortcuts(answering ? actions : { microphone: actions.microphone });

  const end = async () => {
    setPanel(undefined);
    try {
      await api.end(call.id, call.token);
      await leave();
    } catch {
      await ask('viva.end', 'The interview ends.');
    }
  };

  // People leave; their captions keep the name.
  for (const p of [...people, ...(interviewer.participant ? [interviewer.participant] : [])]) {
    names.current.set(p.identity, nameOf(p));
  }
  const captionName = (id: string) =>
    id === call.identity ? `${call.name} · you` : (names.current.get(id) ?? 'Guest');

  return (
    <div className="room" data-testid="room" data-status={status} onClickCapture={leaveNoFocus}>
      <header className="room-head">
        <h1 className="room-title">{call.planTitle}</h1>
        <Badges
          consents={consents}
          known={known}
          recognised={interviewer.recognition !== 'off'}
          onOpen={() => setPanel('consent')}
        />
        <div className="room-tools">
          {call.invitePath && (
            <button type="button" className="secondary only-wide" onClick={() => setPanel('invite')}>
              <Icon name="invite" />
              Invite
            </button>
          )}
          <span className="only-wide">
            <ThemeSwitch />
          </span>
        </div>
      </header>

      <main className="room-main">
        <Stage interviewer={interviewer} ring={ring} people={people} self={local.localParticipant} />
        <section className="room-side" aria-label="Question and captions">
          <RoomNotices
            handle={handle}
            interviewer={interviewer}
            answering={answering}
            over={over}
            closing={over && alone && !interviewer.present}
            canPlay={sound.canPlayAudio}
            onSound={sound.mergedProps.onClick}
            onConsent={() => void change('ai_interviewer', true)}
            onTranscript={() => navigate(`/transcript/${encodeURIComponent(call.id)}`)}
          />
          {!over && <Question progress={interviewer.progress} />}
          {captionsOn && (
            <Captions
              captions={captions}
              nameOf={captionName}
              own={call.identity}
              size={captionSize}
              empty="What is said appears here."
            />
          )}
          {!hintsSeen && (
            <div className="hints only-keyboard" role="note">
              <p>
                {answering && (
                  <>
                    <kbd>Space</kbd> I'm done <kbd>T</kbd> I'm thinking{' '}
                  </>
                )}
                <kbd>M</kbd> microphone
              </p>
              <button type="button" className="plain" onClick={() => setPrefs({ hintsSeen: true })}>
                Got it
              </button>
            </div>
          )}
        </section>
      </main>

      <footer className="room-foot">
        <p className="word" role="status" data-testid="word">
          {word}
        </p>
        <Controls
          microphoneOn={local.isMicrophoneEnabled}
          cameraOn={local.isCameraEnabled}
          sharing={local.isScreenShareEnabled}
          canShare={canShare}
          answering={answering}
          thinking={interviewer.hold}
          ready={interviewer.present && !over}
          onMicrophone={actions.microphone}
          onCamera={() => void setDevice('camera', !local.isCameraEnabled)}
          onShare={actions.share}
          onThinking={actions.thinking}
          onDone={actions.done}
          onMore={() => setPanel('more')}
          onLeave={() => void leave()}
        />
      </footer>

      {panel === 'consent' && (
        <ConsentPanel consents={consents} error={error} onChange={change} onClose={() => setPanel(undefined)} />
      )}
      {panel === 'invite' && call.invitePath && (
        <Dialog title="Invite a second person" onClose={() => setPanel(undefined)}>
          <InviteLink path={call.invitePath} />
        </Dialog>
      )}
      {panel === 'more' && (
        <MorePanel
          room={room}
          invitePath={call.invitePath}
          canAnswer={answering && interviewer.present}
          canShareHere={canShare}
          onRepeat={() => {
            setPanel(undefined);
            void ask('viva.repeat', 'The interviewer repeats the question.');
          }}
          onShare={() => {
            setPanel(undefined);
            actions.share();
          }}
          onEnd={() => void end()}
          onClose={() => setPanel(undefined)}
        />
      )}
    </div>
  );
}

function Question({ progress }: { progress?: Progress }) {
  return (
    <div className="question" data-testid="question">
      <p className="question-text" aria-live="polite" data-testid="question-text">
        {progress?.question || 'The interviewer greets you in a moment.'}
      </p>
      {progress && progress.asked > 0 && (
        <p className="question-count" data-testid="progress">
          {progress.asked} of {progress.total}
        </p>
      )}
    </div>
  );
}
