import { useState } from 'react';
import type { Consents, Purpose } from '../consent';
import { Dialog } from './Dialog';
import { Notice } from './Notice';

const TEXT: Record<Purpose, { label: string; on: string; off: string }> = {
  ai_interviewer: {
    label: 'The AI may listen to me',
    on: 'It hears you, shows captions and, if you are interviewed, replies. Switch off and it stops hearing you at once.',
    off: 'It does not hear you. People in the call do.',
  },
  transcription: {
    label: 'Keep a transcript of what I say',
    on: 'Your words are stored as text. Switch off and nothing more is stored; what was kept stays until it is deleted.',
    off: 'Nothing that you say is stored.',
  },
};

export function ConsentPanel({
  consents,
  error,
  onChange,
  onClose,
}: {
  consents: Consents;
  error?: string;
  onChange: (purpose: Purpose, granted: boolean) => Promise<void>;
  onClose: () => void;
}) {
  const [busy, setBusy] = useState<Purpose>();
  const row = (purpose: Purpose) => {
    const on = consents[purpose];
    return (
      <div className="consent-row">
        <label className="switch-row">
          <input
            type="checkbox"
            role="switch"
            checked={on}
            disabled={busy === purpose}
            aria-describedby={`${purpose}-means`}
            onChange={(event) => {
              setBusy(purpose);
              void onChange(purpose, event.target.checked).finally(() => setBusy(undefined));
            }}
          />
          <span>{TEXT[purpose].label}</span>
        </label>
        <p className="hint" id={`${purpose}-means`}>
          {on ? TEXT[purpose].on : TEXT[purpose].off}
        </p>
      </div>
    );
  };
  return (
    <Dialog title="What happens with your voice" onClose={onClose}>
      {row('ai_interviewer')}
      {row('transcription')}
      {!consents.ai_interviewer && consents.transcription && (
        <p className="hint">While the AI does not listen, there is nothing to write down.</p>
      )}
      {error && <Notice tone="trouble">{error}</Notice>}
    </Dialog>
  );
}
