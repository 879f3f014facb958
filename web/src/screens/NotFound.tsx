import { Problem } from '../components/Problem';

export function NotFound() {
  return (
    <Problem title="There is nothing at this address" text="Check the link, or start a practice interview.">
      <a className="button primary" href="/">
        Start a practice interview
      </a>
    </Problem>
  );
}
