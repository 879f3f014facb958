// The steps of one story: each stands on the ones before. After a failure the rest is skipped, not failed one by one, and
// what the pages showed is kept.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { output } from './paths.mjs';

/** `parts` gives the server and the pages by name: of a failure are kept the pages' pictures and the server's metrics. */
export function steps(story, parts = () => ({})) {
  let broken;
  return (name, work) =>
    test(name, async (t) => {
      if (broken) return t.skip(`"${broken}" failed before`);
      try {
        await work(t);
      } catch (error) {
        broken = name;
        const { server, ...pages } = parts();
        const metrics = await server?.metrics().catch(() => undefined);
        if (metrics) {
          const lines = [...metrics].filter(([name]) => !name.includes('_bucket')).map((entry) => entry.join(' '));
          writeFileSync(join(output('e2e'), `${story}-metrics.txt`), lines.join('\n'));
        }
        for (const [who, page] of Object.entries(pages)) {
          const path = join(output('e2e'), `${story}-${who}-failed.png`);
          await page?.screenshot({ path, timeout: 5000 }).catch(() => {});
          if (page?.faults.length) console.log(`    ${who}: ${page.faults.slice(0, 5).join('; ')}`);
        }
        throw error;
      }
    });
}
