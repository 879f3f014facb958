// Screenshots of a screen at every size and in both colours, to be looked at by a person.
import { join } from 'node:path';
import { DESKTOP, PHONE, TABLET } from './browser.mjs';
import { output } from './paths.mjs';

const SIZES = { phone: PHONE, tablet: TABLET, desktop: DESKTOP };

/** Writes `test-output/screens/NAME-SIZE-COLOUR.png`, six of them, and checks that no screen is wider than its window. */
export async function shoot(page, name, { full = false } = {}) {
  const wide = [];
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.screenshot({ path: join(output('screens'), `${name}-${size}-${colorScheme}.png`), fullPage: full, animations: 'disabled' });
    }
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (over > 0) wide.push(`${name} is ${over} px wider than a ${size}`);
  }
  await page.setViewportSize(DESKTOP);
  if (wide.length) throw new Error(wide.join('; '));
}
