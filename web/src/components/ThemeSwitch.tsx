import { setPrefs, usePrefs, type Theme } from '../prefs';
import { Icon } from './Icon';

const ORDER: Theme[] = ['system', 'light', 'dark'];
const WORDS: Record<Theme, string> = { system: 'as the system', light: 'light', dark: 'dark' };

/** One button through the three themes; its name says where it stands. */
export function ThemeSwitch() {
  const { theme } = usePrefs();
  const next = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length] ?? 'system';
  return (
    <button
      type="button"
      className="quiet"
      aria-label={`Colours: ${WORDS[theme]}. Change to ${WORDS[next]}`}
      title={`Colours: ${WORDS[theme]}`}
      onClick={() => setPrefs({ theme: next })}
    >
      <Icon name="theme" />
    </button>
  );
}
