import { RoomAudioRenderer, RoomContext } from '@livekit/components-react';
import { useEffect, useState } from 'react';
import { api } from '../api';
import { Page } from '../components/Page';
import { Problem } from '../components/Problem';
import { RoomView } from '../components/RoomView';
import type { Failure } from '../failures';
import { navigate } from '../router';
import { loadCall, type Call } from '../session';
import { useCall } from '../useCall';

const transcriptOf = (id: string) => `/transcript/${encodeURIComponent(id)}`;

export default function CallScreen({ id }: { id: string }) {
  const [call] = useState(() => loadCall(id));
  const [may, setMay] = useState(false);

  // A reload long after the end shall not open the microphone in an empty room.
  useEffect(() => {
    if (!call) return;
    let current = true;
    api.interview(call.id, call.token).then(
      (interview) => {
        if (!current) return;
        if (interview.state === 'ended') navigate(transcriptOf(id), true);
        else setMay(true);
      },
      // Whatever is wrong, entering the room will say it.
      () => current && setMay(true),
    );
    return () => {
      current = false;
    };
  }, [call, id]);

  if (!call) {
    return (
      <Problem
        title="This tab has no place in the interview"
        text="Open the link that you were given once more, or go back to the tab in which you joined."
      >
        <a className="button primary" href="/">
          Start a practice interview
        </a>
      </Problem>
    );
  }
  return may ? <Connected call={call} /> : <Page title="Interview">{null}</Page>;
}

function Connected({ call }: { call: Call }) {
  const handle = useCall(call);
  const { room, status, failure } = handle;

  useEffect(() => {
    if (status === 'left') navigate(transcriptOf(call.id), true);
  }, [status, call.id]);

  if (failure) return <Broken call={call} failure={failure} onRetry={() => void handle.connect()} />;
  return (
    <RoomContext.Provider value={room}>
      <RoomView call={call} handle={handle} />
      <RoomAudioRenderer />
    </RoomContext.Provider>
  );
}

function Broken({ call, failure, onRetry }: { call: Call; failure: Failure; onRetry: () => void }) {
  const transcript = (
    <a key="transcript" className="button secondary" href={transcriptOf(call.id)}>
      See the transcript
    </a>
  );
  const start = (
    <a key="start" className="button primary" href="/">
      Start a practice interview
    </a>
  );
  const again = (
    <button key="again" type="button" className="primary" onClick={onRetry}>
      {failure.next === 'takeover' ? 'Use this tab' : 'Try again'}
    </button>
  );
  const buttons = {
    retry: [again, transcript],
    takeover: [again],
    transcript: [transcript],
    start: [start],
  }[failure.next];
  return (
    <Problem title={failure.title} text={failure.text} details={failure.details}>
      {buttons}
    </Problem>
  );
}
