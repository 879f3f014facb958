import { useCallback, useEffect, useState } from 'react';
import { api, ApiError, type Transcript } from '../api';
import { Icon } from '../components/Icon';
import { Details, Notice } from '../components/Notice';
import { Page } from '../components/Page';
import { Problem } from '../components/Problem';
import { clock, transcriptText } from '../format';
import { loadCall, type Call } from '../session';

/** While the interview is not over its last lines are still being written. */
const REFRESH_MS = 2000;

export function TranscriptScreen({ id }: { id: string }) {
  const [call] = useState(() => loadCall(id));
  if (!call) {
    return (
      <Problem
        title="This tab may not read the transcript"
        text="Only the people of the interview can, in the tab in which they joined."
      >
        <a className="button primary" href="/">
          Start a practice interview
        </a>
      </Problem>
    );
  }
  return <TranscriptOf call={call} />;
}

function TranscriptOf({ call }: { call: Call }) {
  const [transcript, setTranscript] = useState<Transcript>();
  const [failure, setFailure] = useState<ApiError>();
  const [ending, setEnding] = useState(false);

  const load = useCallback(
    () =>
      api.transcript(call.id, call.token).then(
        (result) => {
          setTranscript(result);
          setFailure(undefined);
        },
        (error: ApiError) => setFailure(error),
      ),
    [call.id, call.token],
  );

  const over = transcript?.interview.state === 'ended';
  useEffect(() => {
    void load();
    if (over) return;
    const timer = setInterval(() => void load(), REFRESH_MS);
    return () => clearInterval(timer);
  }, [load, over]);

  const end = async () => {
    setEnding(true);
    try {
      await api.end(call.id, call.token);
      await load();
    } catch (error) {
      if (error instanceof ApiError) setFailure(error);
    } finally {
      setEnding(false);
    }
  };

  const download = () => {
    if (!transcript) return;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([transcriptText(transcript, call.planTitle)], { type: 'text/plain' }));
    link.download = `interview-${call.id}.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const { interview, lines } = transcript ?? {};
  return (
    <Page title="Transcript">
      <h1>{over || !interview ? 'Your interview' : 'You left the interview'}</h1>
      <p className="lead">
        {call.planTitle}
        {interview && interview.questions_total > 0 && (
          <>
            {' · '}
            {interview.questions_asked} of {interview.questions_total} questions
          </>
        )}
        {interview?.started_at_ms && (
          <>
            {' · '}
            {new Date(interview.started_at_ms).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}
          </>
        )}
      </p>

      {failure && (
        <>
          <Notice tone="trouble" action={{ label: 'Try again', onPress: () => void load() }}>
            {failure.message}
          </Notice>
          <Details text={failure.technical} />
        </>
      )}
      {interview && !over && (
        <div className="stack-8">
          <p>It goes on without you for a short while. You can return, or end it now.</p>
          <div className="row">
            <a className="button primary" href={`/room/${encodeURIComponent(call.id)}`}>
              Return to the interview
            </a>
            <button type="button" className="secondary" disabled={ending} onClick={() => void end()}>
              End it now
            </button>
          </div>
        </div>
      )}

      {!lines && !failure && <p className="hint">Loading the transcript…</p>}
      {lines && (
        <section aria-labelledby="lines-title" className="transcript">
          <header>
            <h2 id="lines-title">Transcript</h2>
            {lines.length > 0 && (
              <button type="button" className="secondary" onClick={download}>
                <Icon name="download" />
                Download as text
              </button>
            )}
          </header>
          {lines.length === 0 && <p className="hint">Nothing was kept of this interview.</p>}
          <ol className="lines" data-testid="transcript">
            {lines.map((line) => (
              <li
                key={line.seq}
                className={line.role === 'ai' ? 'line line-ai' : 'line'}
                data-testid="line"
                data-role={line.role}
                data-identity={line.identity}
              >
                <span className="line-time">{clock(line.start_ms)}</span>
                <span className="line-name">
                  {line.name}
                  {line.identity === call.identity && ' · you'}
                </span>
                <span className="line-text">
                  {line.text}
                  {line.interrupted && <span className="line-cut"> (interrupted)</span>}
                </span>
              </li>
            ))}
          </ol>
        </section>
      )}
      <div className="actions">
        <a className={over ? 'button primary' : 'button plain'} href="/">
          Start another
        </a>
      </div>
    </Page>
  );
}
