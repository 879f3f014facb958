import { useCallback, useEffect, useRef, useState, type FormEvent } from 'react';
import { api, ApiError, type InviteInfo } from '../api';
import { ConsentForm, type Answers } from '../components/ConsentForm';
import { NameField } from '../components/NameField';
import { Page } from '../components/Page';
import { Problem } from '../components/Problem';
import { navigate } from '../router';
import { saveDraft } from '../session';

/** Where a link leads: the second person says who they are and what they consent to. */
export function Join({ id }: { id: string }) {
  const invite = new URLSearchParams(location.search).get('invite') ?? '';
  const [info, setInfo] = useState<InviteInfo>();
  const [failure, setFailure] = useState<ApiError>();

  const load = useCallback(() => {
    setFailure(undefined);
    api.invite(id, invite).then(setInfo, (error: ApiError) => setFailure(error));
  }, [id, invite]);
  useEffect(load, [load]);

  if (failure) {
    const unreachable = failure.status === 0 || failure.status >= 500;
    return (
      <Problem
        title={unreachable ? 'The server does not answer' : 'This link does not work'}
        text={failure.message}
        details={failure.technical}
      >
        {unreachable ? (
          <button type="button" className="primary" onClick={load}>
            Try again
          </button>
        ) : (
          <a className="button secondary" href="/">
            Start a practice interview
          </a>
        )}
      </Problem>
    );
  }
  return (
    <Page title="Join an interview">
      <h1>Join an interview</h1>
      {info ? <JoinForm id={id} invite={invite} info={info} /> : <p className="hint">Looking up the link…</p>}
    </Page>
  );
}

function JoinForm({ id, invite, info }: { id: string; invite: string; info: InviteInfo }) {
  const [name, setName] = useState('');
  const [answers, setAnswers] = useState<Answers>({});
  const [tried, setTried] = useState(false);
  const form = useRef<HTMLFormElement>(null);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    const { ai_interviewer, transcription } = answers;
    if (!name.trim() || ai_interviewer === undefined || transcription === undefined) {
      requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[aria-invalid=true]')?.focus());
      return;
    }
    saveDraft({
      kind: 'guest',
      interview: id,
      invite,
      planTitle: info.plan_title,
      name: name.trim(),
      consents: { ai_interviewer, transcription },
      noticeVersion: info.notice.version,
    });
    navigate('/ready');
  };

  return (
    <>
      <p className="lead">
        You are invited to “{info.plan_title}”. An AI asks the questions; you join as a second interviewer.
      </p>
      {info.interviewee_waiting && <p className="hint">The person who is interviewed is there already.</p>}
      <form ref={form} className="stack" onSubmit={submit} noValidate>
        <NameField value={name} onChange={setName} error={tried && !name.trim() ? 'Type your name.' : undefined} />
        <ConsentForm notice={info.notice} answers={answers} onChange={setAnswers} guest showErrors={tried} />
        <div className="actions">
          <button type="submit" className="primary">
            Continue to the ready check
          </button>
          <p className="hint">The microphone stays closed until then.</p>
        </div>
      </form>
    </>
  );
}
