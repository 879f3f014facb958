import type { ReactNode } from 'react';

/** A set of radio cards. `value` may be undefined: nothing is chosen for the person. */
export function Choice<T extends string>({
  legend,
  name,
  value,
  options,
  onChange,
  error,
  note,
}: {
  legend: string;
  name: string;
  value: T | undefined;
  options: { value: T; label: string; detail?: ReactNode }[];
  onChange: (value: T) => void;
  error?: string;
  note?: ReactNode;
}) {
  const errorId = `${name}-error`;
  return (
    <fieldset className="choice" aria-describedby={error ? errorId : undefined}>
      <legend>{legend}</legend>
      {note && <p className="hint">{note}</p>}
      <div className="cards">
        {options.map((option) => (
          <label key={option.value} className="card">
            <input
              type="radio"
              name={name}
              value={option.value}
              checked={value === option.value}
              // The name alone; the detail is read after it.
              aria-labelledby={`${name}-${option.value}`}
              aria-describedby={option.detail ? `${name}-${option.value}-detail` : undefined}
              aria-invalid={error ? true : undefined}
              onChange={() => onChange(option.value)}
            />
            <span>
              <span className="card-label" id={`${name}-${option.value}`}>{option.label}</span>
              {option.detail && (
                <span className="card-detail" id={`${name}-${option.value}-detail`}>
                  {option.detail}
                </span>
              )}
            </span>
          </label>
        ))}
      </div>
      {error && (
        <p className="field-error" id={errorId} role="alert">
          {error}
        </p>
      )}
    </fieldset>
  );
}
