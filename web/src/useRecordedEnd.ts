// Whether the server's record says that the interview is over. Asked only while no interviewer is here: it may have
// ended while this page was away, or with the server that carried it.
import { useEffect, useState } from 'react';
import { api } from './api';
import type { Call } from './session';

/** The interviewer usually comes within one; a resumed call has everybody back within three. */
const FIRST_MS = 3000;
const AGAIN_MS = 5000;

export function useRecordedEnd(call: Call, absent: boolean): boolean {
  const [ended, setEnded] = useState(false);
  useEffect(() => {
    if (!absent || ended) return;
    let timer = 0;
    let current = true;
    const look = async () => {
      const state = await api.interview(call.id, call.token).then(
        (interview) => interview.state,
        // The call itself says when the server is gone.
        () => undefined,
      );
      if (!current) return;
      if (state === 'ended') setEnded(true);
      else timer = window.setTimeout(() => void look(), AGAIN_MS);
    };
    timer = window.setTimeout(() => void look(), FIRST_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [absent, call.id, call.token, ended]);
  return ended;
}
