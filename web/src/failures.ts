// Why a call did not come about or broke off: a sentence and one next step.
import { ConnectionError, ConnectionErrorReason, DisconnectReason } from 'livekit-client';

export type NextStep = 'retry' | 'takeover' | 'transcript' | 'start';

export interface Failure {
  title: string;
  text: string;
  next: NextStep;
  details?: string;
}

const LOST: Failure = {
  title: 'The connection was lost',
  text: 'Your place is kept for a while. Check your network, then press Try again.',
  next: 'retry',
};

export function failureOfConnect(error: unknown): Failure {
  const details = error instanceof Error ? error.message : String(error);
  if (!(error instanceof ConnectionError)) return { ...LOST, details };
  switch (error.reason) {
    case ConnectionErrorReason.NotAllowed:
      if (error.status === 404) return { ...over(), details };
      return {
        title: 'This link does not let you in any more',
        text: 'It is wrong or too old. Start a new interview, or ask the person who invited you for a new link.',
        next: 'start',
        details,
      };
    case ConnectionErrorReason.LeaveRequest:
      return { ...(failureOfDisconnect(error.context as DisconnectReason) ?? LOST), details };
    case ConnectionErrorReason.ServerUnreachable:
    case ConnectionErrorReason.Timeout:
    case ConnectionErrorReason.WebSocket:
      return {
        title: 'The server does not answer',
        text: 'Check your connection, then press Try again. If it stays so, the server may be down.',
        next: 'retry',
        details,
      };
    default:
      return {
        title: 'The call could not be set up',
        text: 'Press Try again. If it stays so, your network may block calls; try another one.',
        next: 'retry',
        details,
      };
  }
}

function over(): Failure {
  return { title: 'The interview is over', text: 'What was kept of it is in the transcript.', next: 'transcript' };
}

/** Whether the reason came with the server's own words to leave, and not from a broken connection. */
export function isSaidByServer(reason: DisconnectReason | undefined): boolean {
  return (
    reason === DisconnectReason.DUPLICATE_IDENTITY ||
    reason === DisconnectReason.PARTICIPANT_REMOVED ||
    reason === DisconnectReason.ROOM_DELETED ||
    reason === DisconnectReason.ROOM_CLOSED ||
    reason === DisconnectReason.SERVER_SHUTDOWN
  );
}

/** Undefined: the person left by themselves. */
export function failureOfDisconnect(reason: DisconnectReason | undefined): Failure | undefined {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return undefined;
    case DisconnectReason.DUPLICATE_IDENTITY:
      return {
        title: 'You are in this interview in another tab',
        text: 'Only one tab at a time can carry your voice. Go on there, or press Use this tab.',
        next: 'takeover',
      };
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return over();
    case DisconnectReason.PARTICIPANT_REMOVED:
      return {
        title: 'You were taken out of the call',
        text: 'Somebody who runs this interview closed your place. What was kept is in the transcript.',
        next: 'transcript',
      };
    case DisconnectReason.SERVER_SHUTDOWN:
      return {
        title: 'The server is restarting',
        text: 'Wait a moment, then press Try again. What was kept so far is safe.',
        next: 'retry',
      };
    default:
      return { ...LOST, details: reason === undefined ? undefined : DisconnectReason[reason] };
  }
}
