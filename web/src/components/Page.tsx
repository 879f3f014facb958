import { useEffect, useRef, type ReactNode } from 'react';
import { hasMoved } from '../router';
import { ThemeSwitch } from './ThemeSwitch';

/** A page outside of the room: name on top, one column. */
export function Page({ title, children, wide }: { title: string; children: ReactNode; wide?: boolean }) {
  useEffect(() => {
    document.title = title === 'Viva' ? title : `${title} · Viva`;
  }, [title]);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    if (hasMoved()) main.current?.focus({ preventScroll: true });
  }, []);
  return (
    <div className="page">
      <header className="page-head">
        <a className="brand" href="/">
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <circle cx="12" cy="12" r="8.5" />
          </svg>
          Viva
        </a>
        <ThemeSwitch />
      </header>
      <main ref={main} tabIndex={-1} className={wide ? 'column column-wide' : 'column'}>{children}</main>
    </div>
  );
}
