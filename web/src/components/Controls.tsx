import type { ReactNode } from 'react';
import { Icon, type IconName } from './Icon';

function Control({
  icon,
  label,
  pressed,
  disabled,
  className = '',
  keyHint,
  onPress,
  children,
}: {
  icon: IconName;
  label: string;
  /** Undefined: not a switch. */
  pressed?: boolean;
  disabled?: boolean;
  className?: string;
  keyHint?: string;
  onPress: () => void;
  children?: ReactNode;
}) {
  return (
    <button
      type="button"
      className={`control ${className}`}
      aria-label={label}
      aria-pressed={pressed}
      aria-keyshortcuts={keyHint}
      title={keyHint ? `${label} (${keyHint})` : label}
      disabled={disabled}
      onClick={onPress}
    >
      <Icon name={icon} />
      {children}
    </button>
  );
}

export interface ControlsProps {
  microphoneOn: boolean;
  cameraOn: boolean;
  sharing: boolean;
  canShare: boolean;
  /** Only whose answers are awaited has these. */
  answering: boolean;
  thinking: boolean;
  ready: boolean;
  onMicrophone: () => void;
  onCamera: () => void;
  onShare: () => void;
  onThinking: () => void;
  onDone: () => void;
  onMore: () => void;
  onLeave: () => void;
}

export function Controls(p: ControlsProps) {
  return (
    <div className="controls" role="group" aria-label="Call controls">
      <Control
        icon={p.microphoneOn ? 'microphone' : 'microphoneOff'}
        label="Microphone"
        pressed={p.microphoneOn}
        keyHint="M"
        onPress={p.onMicrophone}
      >
        <span className="control-word">{p.microphoneOn ? 'Microphone' : 'Muted'}</span>
      </Control>
      <Control
        icon={p.cameraOn ? 'camera' : 'cameraOff'}
        label="Camera"
        pressed={p.cameraOn}
        onPress={p.onCamera}
      >
        <span className="control-word">{p.cameraOn ? 'Camera' : 'Camera off'}</span>
      </Control>
      {p.canShare && (
        <Control
          icon="share"
          label="Share your screen"
          pressed={p.sharing}
          className="control-share"
          onPress={p.onShare}
        >
          <span className="control-word">{p.sharing ? 'Sharing' : 'Share'}</span>
        </Control>
      )}
      {p.answering && (
        <>
          <Control
            icon="thinking"
            label="I'm thinking"
            pressed={p.thinking}
            keyHint="T"
            disabled={!p.ready}
            className="control-worded"
            onPress={p.onThinking}
          >
            <span>I'm thinking</span>
          </Control>
          <Control
            icon="done"
            label="I'm done"
            keyHint="Space"
            disabled={!p.ready}
            className="control-worded control-next"
            onPress={p.onDone}
          >
            <span>I'm done</span>
          </Control>
        </>
      )}
      <Control icon="more" label="More" onPress={p.onMore}>
        <span className="control-word">More</span>
      </Control>
      <Control icon="leave" label="Leave" className="control-leave" onPress={p.onLeave}>
        <span className="control-word">Leave</span>
      </Control>
    </div>
  );
}
