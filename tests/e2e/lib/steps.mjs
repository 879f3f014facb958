// The steps of one story: each stands on the ones before. After a failure the rest is skipped, not failed one by one, and
// what the pages showed is kept.
import { join } from 'node:path';
import { test } from 'node:test';
import { output } from './paths.mjs';

/** `pages` gives the pages by name, for pictures of a failure. */
export function steps(story, pages = () => ({})) {
  let broken;
  return (name, work) =>
    test(name, async (t) => {
      if (broken) return t.skip(`"${broken}" failed before`);
      try {
        await work(t);
      } catch (error) {
        broken = name;
        for (const [who, page] of Object.entries(pages())) {
          const path = join(output('e2e'), `${story}-${who}-failed.png`);
          await page?.screenshot({ path, timeout: 5000 }).catch(() => {});
          if (page?.faults.length) console.log(`    ${who}: ${page.faults.slice(0, 5).join('; ')}`);
        }
        throw error;
      }
    });
}
