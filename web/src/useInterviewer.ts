// The AI interviewer as the room sees it, and what it last said about itself after it has gone.
import { useRemoteParticipants, useRoomContext } from '@livekit/components-react';
import { ParticipantKind, RoomEvent, type Participant, type RemoteParticipant } from 'livekit-client';
import { useEffect, useState } from 'react';
import { readAttributes, type InterviewerInfo, type Progress } from './interviewer';

export interface Interviewer extends InterviewerInfo {
  participant?: RemoteParticipant;
  name: string;
  attributes?: Readonly<Record<string, string>>;
  /** It was here and is not any more. */
  gone: boolean;
}

interface Remembered {
  seen: boolean;
  name: string;
  progress?: Progress;
  ended?: string;
}

export function useInterviewer(): { interviewer: Interviewer; people: RemoteParticipant[] } {
  const remote = useRemoteParticipants();
  const participant = remote.find((p) => p.kind === ParticipantKind.AGENT);
  const attributes = participant?.attributes;
  const info = readAttributes(attributes);
  const [last, setLast] = useState<Remembered>({ seen: false, name: 'Interviewer' });

  // Its last word and its leaving may come in one breath, and then no drawing lies between them.
  const room = useRoomContext();
  useEffect(() => {
    const onChange = (changed: Record<string, string>, who: Participant) => {
      const ended = who.kind === ParticipantKind.AGENT && changed['viva.ended'];
      if (ended) setLast((old) => ({ ...old, seen: true, ended }));
    };
    room.on(RoomEvent.ParticipantAttributesChanged, onChange);
    return () => void room.off(RoomEvent.ParticipantAttributesChanged, onChange);
  }, [room]);

  const name = participant?.name;
  const { ended } = info;
  const asked = info.progress?.asked;
  const total = info.progress?.total;
  const question = info.progress?.question;
  useEffect(() => {
    if (!participant) return;
    setLast((old) => ({
      seen: true,
      name: name || old.name,
      progress: asked !== undefined && total !== undefined ? { asked, total, question: question ?? '' } : old.progress,
      ended: ended ?? old.ended,
    }));
  }, [participant, name, ended, asked, total, question]);

  return {
    interviewer: {
      ...info,
      participant,
      attributes,
      name: name || last.name,
      progress: info.progress ?? last.progress,
      ended: info.ended ?? last.ended,
      gone: last.seen && !participant,
    },
    people: remote.filter((p) => p.kind !== ParticipantKind.AGENT),
  };
}
