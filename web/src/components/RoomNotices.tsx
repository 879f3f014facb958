// What is out of the ordinary in the room, as sentences; the most pressing first, never more than needed.
import type { CallHandle } from '../useCall';
import type { Interviewer } from '../useInterviewer';
import { Notice } from './Notice';

export function RoomNotices({
  handle,
  interviewer,
  answering,
  over,
  closing,
  canPlay,
  onSound,
  onConsent,
  onTranscript,
}: {
  handle: CallHandle;
  interviewer: Interviewer;
  answering: boolean;
  over: boolean;
  /** The transcript opens by itself in a moment. */
  closing: boolean;
  canPlay: boolean;
  onSound: () => void;
  onConsent: () => void;
  onTranscript: () => void;
}) {
  const { status, deviceProblem } = handle;
  const listens = interviewer.present && !over && !interviewer.waiting;
  return (
    <div className="notices">
      {status === 'joining' && <Notice testId="joining">Joining the call…</Notice>}
      {status === 'reconnecting' && (
        <Notice tone="attention" testId="reconnecting">
          The connection is interrupted. Reconnecting by itself; your place is kept.
        </Notice>
      )}
      {!canPlay && (
        <Notice tone="attention" action={{ label: 'Turn on sound', onPress: onSound, next: true }} testId="sound-blocked">
          Your browser keeps the sound off until you press.
        </Notice>
      )}
      {deviceProblem && (
        <Notice
          tone="attention"
          action={{
            label: 'Try again',
            onPress: () => void handle.setDevice(deviceProblem.device, true),
          }}
          testId="device-problem"
        >
          {deviceProblem.text}
        </Notice>
      )}
      {over && (
        <Notice action={{ label: 'See the transcript', onPress: onTranscript, next: true }} testId="interview-over">
          The interview is over. Thank you.
          {closing && ' Your transcript opens in a moment.'}
        </Notice>
      )}
      {interviewer.gone && !over && status === 'live' && (
        <Notice
          tone="attention"
          action={{ label: 'See the transcript', onPress: onTranscript }}
          testId="interviewer-gone"
        >
          The interviewer has left. People in the call still hear you; what was kept is in the transcript.
        </Notice>
      )}
      {interviewer.waiting === 'consent' &&
        (answering ? (
          <Notice
            tone="attention"
            action={{ label: 'Let the AI listen', onPress: onConsent, next: true }}
            testId="waiting-consent"
          >
            The interviewer may not listen to you, so it stays silent. The call itself works.
          </Notice>
        ) : (
          <Notice testId="waiting-consent">
            The interviewer stays silent, because the person who is interviewed has not allowed it to listen.
          </Notice>
        ))}
      {listens && interviewer.recognition === 'off' && (
        <Notice tone="attention" small testId="recognition-off">
          Speech recognition is off; the interviewer waits for your pauses. What you say does not appear in captions or
          transcript.
        </Notice>
      )}
      {listens && interviewer.recognition === 'degraded' && (
        <Notice tone="attention" small testId="recognition-degraded">
          Speech recognition is slow at the moment; some of your words may be missing in captions and transcript.
        </Notice>
      )}
    </div>
  );
}
