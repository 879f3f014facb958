// Who is here. One of them fills the stage on a phone; on a desktop all have a place.
import type { LocalParticipant, Participant, RemoteParticipant } from 'livekit-client';
import { useEffect, useState } from 'react';
import { useSpeakingParticipants } from '@livekit/components-react';
import { Track } from 'livekit-client';
import type { RingState } from '../interviewer';
import type { Interviewer } from '../useInterviewer';
import { Ring } from './Ring';
import { SelfView } from './SelfView';
import { ShareTile, Tile } from './Tile';

const AI = 'ai';

export function Stage({
  interviewer,
  ring,
  people,
  self,
}: {
  interviewer: Interviewer;
  ring: RingState;
  people: RemoteParticipant[];
  self: LocalParticipant;
}) {
  const sharing = [...people, self].find((p: Participant) => p.isScreenShareEnabled);
  const main = useMainSpeaker(interviewer, people);
  const hasRing = !interviewer.gone;
  const shareOfOther = sharing && sharing !== self ? sharing : undefined;

  return (
    <div
      className={`stage stage-${Math.min(people.length + (hasRing ? 1 : 0), 4)}${shareOfOther ? ' stage-share' : ''}`}
      data-testid="stage"
    >
      {shareOfOther && <ShareTile participant={shareOfOther} label={nameOf(shareOfOther)} />}
      <div className="stage-people">
        {hasRing && (
          <div className={`place place-ring${main === AI ? ' place-main' : ''}`}>
            <Ring
              state={ring}
              name={interviewer.name}
              voice={interviewer.participant?.getTrackPublication(Track.Source.Microphone)?.track}
              microphone={self.getTrackPublication(Track.Source.Microphone)?.track}
            />
          </div>
        )}
        {people.map((person, i) => (
          <div
            key={person.identity}
            className={`place${main === person.identity || (!hasRing && main === AI && i === 0) ? ' place-main' : ''}`}
          >
            <Tile participant={person} label={nameOf(person)} />
          </div>
        ))}
        {!hasRing && people.length === 0 && <p className="stage-empty">Nobody else is here now.</p>}
      </div>
      <SelfView participant={self} />
    </div>
  );
}

export const nameOf = (participant: Participant) => participant.name || 'Guest';

/** Who spoke last, other than the viewer. The interviewer has the stage until somebody else takes it. */
function useMainSpeaker(interviewer: Interviewer, people: RemoteParticipant[]): string {
  const speaking = useSpeakingParticipants();
  const [main, setMain] = useState(AI);
  const loudest = speaking.find((p) => !p.isLocal);
  const next = loudest && (loudest.identity === interviewer.participant?.identity ? AI : loudest.identity);
  useEffect(() => {
    if (next) setMain(next);
  }, [next]);
  return main === AI || people.some((p) => p.identity === main) ? main : AI;
}
