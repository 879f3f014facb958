// Where things are: the repository, the server under test, and what a run leaves behind to be looked at.
import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
export const TOOLS = join(ROOT, 'tests/tools');
export const FIXTURES = join(ROOT, 'tests/e2e/fixtures');
/** The server under test. */
export const VIVA = process.env.VIVA_BIN ?? join(ROOT, 'target/debug/viva');
export const CHROMIUM = process.env.VIVA_CHROMIUM ?? '/usr/bin/chromium';
/** Test tools in Python that need packages run in the project's environment; those that need none, in any. */
export const VENV_PYTHON = process.env.VIVA_PYTHON ?? join(ROOT, '.venv/bin/python');
const OUTPUT = process.env.VIVA_TEST_OUTPUT ?? join(ROOT, 'test-output');

/** A folder under `test-output`, made if absent. */
export function output(...parts) {
  const path = join(OUTPUT, ...parts);
  mkdirSync(path, { recursive: true });
  return path;
}
