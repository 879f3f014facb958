// Who speaks, what is kept, and the two questions. Asked before the microphone is opened.
import type { NoticeText } from '../api';
import type { Consents } from '../consent';
import { Choice } from './Choice';

/** Undefined: not answered yet. */
export type Answers = { [P in keyof Consents]?: boolean };

export const UNANSWERED = 'Choose one of the two. Either is fine.';

export function ConsentForm({
  notice,
  answers,
  onChange,
  guest,
  showErrors,
}: {
  notice: NoticeText;
  answers: Answers;
  onChange: (answers: Answers) => void;
  guest: boolean;
  showErrors: boolean;
}) {
  const asWord = (answer: boolean | undefined) => (answer === undefined ? undefined : answer ? 'yes' : 'no');
  return (
    <section className="consent" aria-labelledby="consent-title">
      <h2 id="consent-title">Before you speak</h2>
      <dl className="facts">
        <div>
          <dt>Who speaks with you</dt>
          <dd>{notice.ai}</dd>
        </div>
        <div>
          <dt>What is kept</dt>
          <dd>{notice.kept}</dd>
        </div>
      </dl>
      <Choice
        legend="May the AI listen to you?"
        name="ai_interviewer"
        value={asWord(answers.ai_interviewer)}
        error={showErrors && answers.ai_interviewer === undefined ? UNANSWERED : undefined}
        onChange={(value) => onChange({ ...answers, ai_interviewer: value === 'yes' })}
        options={[
          {
            value: 'yes',
            label: 'Yes, the AI may listen',
            detail: guest
              ? 'It hears you beside the person it interviews, and shows captions of what you say.'
              : 'It hears your answers, shows captions and replies to you.',
          },
          {
            value: 'no',
            label: 'No, it may not listen',
            detail: guest
              ? 'The call works; people hear you, the AI does not.'
              : 'The call works and people hear you, but the interviewer stays silent until you allow it.',
          },
        ]}
      />
      <Choice
        legend="May a transcript be kept of what you say?"
        name="transcription"
        value={asWord(answers.transcription)}
        error={showErrors && answers.transcription === undefined ? UNANSWERED : undefined}
        onChange={(value) => onChange({ ...answers, transcription: value === 'yes' })}
        options={[
          {
            value: 'yes',
            label: 'Yes, keep a transcript',
            detail: 'Your words are stored as text, with your name and the time. You can read them at the end.',
          },
          {
            value: 'no',
            label: 'No, keep nothing I say',
            detail: 'Captions still show what you say while you say it; nothing of it is stored.',
          },
        ]}
      />
      <p className="hint">You can change both at any time during the call.</p>
    </section>
  );
}
