import { useCallback, useEffect, useRef, useState, type FormEvent } from 'react';
import { api, ApiError, type Practice } from '../api';
import { Choice } from '../components/Choice';
import { ConsentForm, type Answers } from '../components/ConsentForm';
import { NameField } from '../components/NameField';
import { Details, Notice } from '../components/Notice';
import { Page } from '../components/Page';
import { navigate } from '../router';
import { loadDraft, saveDraft } from '../session';

export function Start() {
  const [practice, setPractice] = useState<Practice>();
  const [failure, setFailure] = useState<ApiError>();

  const load = useCallback(() => {
    setFailure(undefined);
    api.practice().then(setPractice, (error: ApiError) => setFailure(error));
  }, []);
  useEffect(load, [load]);

  return (
    <Page title="Start a practice interview">
      <h1>Start a practice interview</h1>
      <p className="lead">
        An AI interviewer asks you real questions, aloud, and listens to your answers. Nobody grades you.
      </p>
      {failure && (
        <>
          <Notice tone="trouble" action={{ label: 'Try again', onPress: load }}>
            {failure.message}
          </Notice>
          <Details text={failure.technical} />
        </>
      )}
      {!practice && !failure && <p className="hint">Loading the interviews…</p>}
      {practice && <StartForm practice={practice} />}
    </Page>
  );
}

function StartForm({ practice }: { practice: Practice }) {
  const old = loadDraft();
  const [plan, setPlan] = useState(
    () => practice.plans.find((p) => old?.kind === 'practice' && p.id === old.plan)?.id ?? practice.plans[0]?.id,
  );
  const [persona, setPersona] = useState(
    () =>
      practice.personas.find((p) => old?.kind === 'practice' && p.id === old.persona)?.id ?? practice.personas[0]?.id,
  );
  const [name, setName] = useState(old?.name ?? '');
  // Never filled in for anybody, not even from the last time.
  const [answers, setAnswers] = useState<Answers>({});
  const [tried, setTried] = useState(false);
  const form = useRef<HTMLFormElement>(null);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    const { ai_interviewer, transcription } = answers;
    const chosen = practice.plans.find((p) => p.id === plan);
    if (!name.trim() || !chosen || !persona || ai_interviewer === undefined || transcription === undefined) {
      requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[aria-invalid=true]')?.focus());
      return;
    }
    saveDraft({
      kind: 'practice',
      plan: chosen.id,
      planTitle: chosen.title,
      persona,
      name: name.trim(),
      consents: { ai_interviewer, transcription },
      noticeVersion: practice.notice.version,
    });
    navigate('/ready');
  };

  return (
    <form ref={form} className="stack" onSubmit={submit} noValidate>
      <Choice
        legend="Which interview?"
        name="plan"
        value={plan}
        onChange={setPlan}
        options={practice.plans.map((p) => ({
          value: p.id,
          label: p.title,
          detail: (
            <>
              {[p.role, p.level].filter(Boolean).join(', ')}
              <br />
              {p.questions} questions, about {p.minutes} minutes
            </>
          ),
        }))}
      />
      <Choice
        legend="Who asks?"
        name="persona"
        value={persona}
        onChange={setPersona}
        options={practice.personas.map((p) => ({ value: p.id, label: p.name, detail: p.style }))}
      />
      <NameField value={name} onChange={setName} error={tried && !name.trim() ? 'Type your name.' : undefined} />
      <ConsentForm notice={practice.notice} answers={answers} onChange={setAnswers} guest={false} showErrors={tried} />
      {!practice.recognition && (
        <Notice tone="attention" testId="recognition-off">
          Speech recognition is off on this server; the interviewer waits for your pauses. Your words do not appear as
          captions or in the transcript.
        </Notice>
      )}
      <div className="actions">
        <button type="submit" className="primary">
          Continue to the ready check
        </button>
        <p className="hint">The microphone stays closed until then.</p>
      </div>
    </form>
  );
}
