import type { ReactNode } from 'react';
import { Details } from './Notice';
import { Page } from './Page';

/** A whole page that says why it cannot go on, and one next step. */
export function Problem({
  title,
  text,
  details,
  children,
}: {
  title: string;
  text: string;
  details?: string;
  children: ReactNode;
}) {
  return (
    <Page title={title}>
      <section className="problem" role="alert" data-testid="problem">
        <h1>{title}</h1>
        <p>{text}</p>
      </section>
      <div className="actions">{children}</div>
      <Details text={details} />
    </Page>
  );
}
