// Waiting for a condition, never for a time: a slow machine makes a test slow, not red.

/** Long enough for a busy two-core machine; a test that waits so long has failed. */
export const PATIENCE_MS = 45_000;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Thrown by a probe: what is waited for can never come. */
export class Hopeless extends Error {}

/** Polls until `probe` gives something truthy and returns it. `what` reads after "waited for". */
export async function until(what, probe, { timeout = PATIENCE_MS, every = 50 } = {}) {
  const deadline = Date.now() + timeout;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (error) {
      if (error instanceof Hopeless) throw error;
      last = error;
    }
    if (Date.now() > deadline) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`waited ${timeout / 1000} s for ${what}; last seen: ${seen}`);
    }
    await sleep(every);
  }
}
