import { useRef, useState } from 'react';

export function InviteLink({ path }: { path: string }) {
  const link = new URL(path, location.origin).href;
  const [word, setWord] = useState('');
  const input = useRef<HTMLInputElement>(null);

  const copy = async () => {
    try {
      await navigator.clipboard.writeText(link);
      setWord('Copied. Send it to one person you trust; it lets them into this call.');
    } catch {
      input.current?.select();
      setWord('The link is selected. Copy it with your keyboard.');
    }
  };

  return (
    <div className="stack-8">
      <div className="row nowrap">
        <input
          ref={input}
          type="text"
          readOnly
          value={link}
          aria-label="Invite link"
          onFocus={(event) => event.target.select()}
        />
        <button type="button" className="secondary" onClick={() => void copy()}>
          Copy
        </button>
      </div>
      <p className="hint" role="status">
        {word || 'Whoever opens it joins as a second interviewer, after choosing what the AI may hear.'}
      </p>
    </div>
  );
}
