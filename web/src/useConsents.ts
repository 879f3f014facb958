// The own consents: read from the server's record, changed by the call's own channel, else by REST.
import { useCallback, useEffect, useState } from 'react';
import type { RemoteParticipant, Room } from 'livekit-client';
import { api, ApiError } from './api';
import { latest, NONE, type Consents, type Purpose } from './consent';
import type { Call } from './session';

export function useConsents(call: Call, room: Room, interviewer: RemoteParticipant | undefined) {
  const [consents, setConsents] = useState<Consents>(NONE);
  const [known, setKnown] = useState(false);
  const [error, setError] = useState<string>();

  useEffect(() => {
    let current = true;
    api
      .consents(call.id, call.token)
      .then((entries) => {
        if (!current) return;
        setConsents(latest(entries));
        setKnown(true);
      })
      .catch(() => current && setError('Your choices could not be read. Open this again in a moment.'));
    return () => {
      current = false;
    };
  }, [call.id, call.token]);

  const identity = interviewer?.identity;
  const change = useCallback(
    async (purpose: Purpose, granted: boolean) => {
      setError(undefined);
      const rest = () => api.setConsent(call.id, call.token, purpose, granted, call.noticeVersion);
      try {
        if (identity) {
          const payload = JSON.stringify({ purpose, granted, notice_version: call.noticeVersion });
          await room.localParticipant
            .performRpc({ destinationIdentity: identity, method: 'viva.consent', payload, responseTimeout: 5000 })
            .catch(rest);
        } else {
          await rest();
        }
        setConsents((old) => ({ ...old, [purpose]: granted }));
        setKnown(true);
      } catch (failure) {
        setError(
          failure instanceof ApiError && failure.code === 'notice_changed'
            ? 'The text that you agree to has changed meanwhile. Reload this page, read it, then choose again.'
            : 'This could not be saved, so nothing has changed. Check your connection, then choose again.',
        );
      }
    },
    [call, identity, room],
  );

  return { consents, known, error, change };
}
