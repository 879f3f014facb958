import { useEffect, useRef, useState } from 'react';
import { ApiError } from '../api';
import { Details, Notice } from '../components/Notice';
import { Page } from '../components/Page';
import { Problem } from '../components/Problem';
import { CameraCheck, MicrophoneCheck, SpeakerCheck } from '../components/Checks';
import { enter } from '../enter';
import { setPrefs, usePrefs } from '../prefs';
import { navigate } from '../router';
import { loadDraft, type Call, type Draft } from '../session';
import { useDevice } from '../useDevice';

export function Ready() {
  const [draft] = useState(loadDraft);
  if (!draft) {
    return (
      <Problem title="Choose an interview first" text="This tab does not know yet which interview you want to join.">
        <a className="button primary" href="/">
          Start a practice interview
        </a>
      </Problem>
    );
  }
  return <ReadyCheck draft={draft} />;
}

function ReadyCheck({ draft }: { draft: Draft }) {
  const { cameraOn } = usePrefs();
  const microphone = useDevice('microphone', true);
  // One question of the browser at a time: the camera's comes when the microphone's is answered.
  const microphoneAnswered = Boolean(microphone.stream || microphone.fault);
  const [cameraMay, setCameraMay] = useState(false);
  useEffect(() => {
    if (microphoneAnswered) setCameraMay(true);
  }, [microphoneAnswered]);
  const camera = useDevice('camera', cameraOn && cameraMay);

  const [joining, setJoining] = useState(false);
  const [failure, setFailure] = useState<ApiError>();
  const made = useRef<Call>();

  const join = async () => {
    setJoining(true);
    setFailure(undefined);
    try {
      const call = await enter(draft, made.current, (call) => (made.current = call));
      navigate(`/room/${encodeURIComponent(call.id)}`);
    } catch (error) {
      setFailure(error instanceof ApiError ? error : new ApiError(0, 'page', 'Something went wrong.', String(error)));
      setJoining(false);
    }
  };

  return (
    <Page title="Ready check" wide>
      <h1>Ready check</h1>
      <p className="lead">
        {draft.planTitle}. Nobody hears or sees you yet{draft.kind === 'practice' ? ', and nothing has begun' : ''}.
      </p>
      <div className="checks">
        <CameraCheck camera={camera} on={cameraOn} onToggle={(on) => setPrefs({ cameraOn: on })} name={draft.name} />
        <div className="stack">
          <MicrophoneCheck microphone={microphone} />
          <SpeakerCheck />
        </div>
      </div>
      {!draft.consents.ai_interviewer && draft.kind === 'practice' && (
        <Notice>
          You chose that the AI may not listen. The interviewer stays silent until you allow it, in the room at the top.
        </Notice>
      )}
      {failure && (
        <>
          <Notice tone="trouble">{failure.message}</Notice>
          <Details text={failure.technical} />
        </>
      )}
      <div className="actions">
        <button type="button" className="primary" disabled={joining} onClick={() => void join()}>
          {joining
            ? 'Joining…'
            : failure
              ? 'Try again'
              : microphone.fault
                ? 'Join without a microphone'
                : 'Join the interview'}
        </button>
        <a className="button plain" href={draft.kind === 'practice' ? '/' : guestPath(draft)}>
          Back
        </a>
      </div>
    </Page>
  );
}

const guestPath = (draft: Extract<Draft, { kind: 'guest' }>) =>
  `/join/${encodeURIComponent(draft.interview)}?invite=${encodeURIComponent(draft.invite)}`;
