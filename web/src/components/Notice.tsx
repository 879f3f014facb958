import type { ReactNode } from 'react';
import { Icon } from './Icon';

/** A sentence about the state of things, with at most one next step. */
export function Notice({
  tone = 'plain',
  small,
  children,
  action,
  testId,
}: {
  tone?: 'plain' | 'attention' | 'trouble';
  /** For what stays on screen for the whole call. */
  small?: boolean;
  children: ReactNode;
  action?: { label: string; onPress: () => void; next?: boolean };
  testId?: string;
}) {
  return (
    <div className={`notice notice-${tone}${small ? ' notice-small' : ''}`} role={tone === 'trouble' ? 'alert' : 'status'} data-testid={testId}>
      {tone !== 'plain' && <Icon name="attention" />}
      <p>{children}</p>
      {action && (
        <button type="button" className={action.next ? 'primary' : 'secondary'} onClick={action.onPress}>
          {action.label}
        </button>
      )}
    </div>
  );
}

/** What to pass on to whoever can mend it; closed by itself. */
export function Details({ text }: { text?: string }) {
  if (!text) return null;
  return (
    <details className="details">
      <summary>Details</summary>
      <code>{text}</code>
    </details>
  );
}
