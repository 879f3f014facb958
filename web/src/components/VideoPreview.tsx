import { useEffect, useRef } from 'react';

/** The own camera, mirrored as people know themselves. */
export function VideoPreview({ stream, label }: { stream: MediaStream; label: string }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
  }, [stream]);
  return <video ref={video} className="mirrored" aria-label={label} autoPlay muted playsInline />;
}
