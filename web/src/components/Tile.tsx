// One person: video or initials, the name, and whether the microphone is off.
import { VideoTrack } from '@livekit/components-react';
import { Track, type Participant } from 'livekit-client';
import { initials } from '../format';
import { Icon } from './Icon';

export function Tile({ participant, label, mirrored }: { participant: Participant; label: string; mirrored?: boolean }) {
  const publication = participant.getTrackPublication(Track.Source.Camera);
  const visible = Boolean(publication?.track) && !publication?.isMuted;
  const quiet = !participant.isMicrophoneEnabled;
  return (
    <figure
      className={`tile${participant.isSpeaking ? ' tile-speaking' : ''}`}
      data-testid="tile"
      data-identity={participant.identity}
    >
      {visible && publication ? (
        <VideoTrack
          className={mirrored ? 'mirrored' : undefined}
          trackRef={{ participant, source: Track.Source.Camera, publication }}
          aria-label={`Video of ${label}`}
        />
      ) : (
        <span className="initials" aria-hidden="true">
          {initials(participant.name || label)}
        </span>
      )}
      <figcaption>
        {quiet && (
          <>
            <Icon name="microphoneOff" />
            <span className="unseen">Microphone off: </span>
          </>
        )}
        <span className="tile-name">{label}</span>
      </figcaption>
    </figure>
  );
}

export function ShareTile({ participant, label }: { participant: Participant; label: string }) {
  const publication = participant.getTrackPublication(Track.Source.ScreenShare);
  if (!publication?.track) return null;
  return (
    <figure className="tile tile-share" data-testid="share-tile">
      <VideoTrack
        trackRef={{ participant, source: Track.Source.ScreenShare, publication }}
        aria-label={`Screen of ${label}`}
      />
      <figcaption>
        <span className="tile-name">Screen of {label}</span>
      </figcaption>
    </figure>
  );
}
