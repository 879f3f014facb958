// What is true about this call, at its top edge. Each badge opens the switches that change it.
import type { Consents } from '../consent';

export function Badges({
  consents,
  known,
  recognised,
  onOpen,
}: {
  consents: Consents;
  known: boolean;
  /** Whether the server understands words at all. */
  recognised: boolean;
  onOpen: () => void;
}) {
  // Without a listener that understands there is nothing to write down, whatever was said about keeping it.
  const transcribed = recognised && consents.ai_interviewer && consents.transcription;
  const badge = (on: boolean, word: string, explain: string) => (
    <button
      type="button"
      className={`badge${on ? ' badge-on' : ''}`}
      aria-haspopup="dialog"
      title={explain}
      onClick={onOpen}
    >
      <span className="badge-dot" aria-hidden="true" />
      {word}
    </button>
  );
  return (
    <div className="badges" role="group" aria-label="What happens with your voice">
      {badge(
        consents.ai_interviewer,
        consents.ai_interviewer || !known ? 'AI interviewer' : 'AI does not hear you',
        consents.ai_interviewer ? 'An AI listens to you. Press to change.' : 'The AI may not listen. Press to change.',
      )}
      {known &&
        badge(
          transcribed,
          transcribed ? 'Transcribed' : 'Not transcribed',
          transcribed ? 'What you say is kept as text. Press to change.' : 'Nothing you say is kept. Press to change.',
        )}
    </div>
  );
}
