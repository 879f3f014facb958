/** The longest name that a tile can still show in two lines. */
export const MAX_NAME = 80;

export function NameField({
  value,
  onChange,
  error,
}: {
  value: string;
  onChange: (name: string) => void;
  error?: string;
}) {
  return (
    <div className="field">
      <label htmlFor="name">Your name</label>
      <input
        id="name"
        type="text"
        autoComplete="name"
        maxLength={MAX_NAME}
        value={value}
        aria-invalid={error ? true : undefined}
        aria-describedby={error ? 'name-error' : 'name-hint'}
        onChange={(event) => onChange(event.target.value)}
      />
      {error ? (
        <p className="field-error" id="name-error" role="alert">
          {error}
        </p>
      ) : (
        <p className="hint" id="name-hint">
          As the others in the call shall see it.
        </p>
      )}
    </div>
  );
}
