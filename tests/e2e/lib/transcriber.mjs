// The transcription endpoint of the stories: tests/tools/transcriber.py with a story's sentences.
import { join } from 'node:path';
import { start } from './process.mjs';
import { output, TOOLS } from './paths.mjs';
import { sentencesFile } from './speech.mjs';
import { Hopeless, until } from './wait.mjs';

export const API_KEY = 'key-of-the-tests';

/** Starts it; `config` is what the server needs to use it, `log()` every request with what was heard. */
export async function transcriber(name, sentences, { prefixes = false, delay = 0 } = {}) {
  const folder = output('e2e', `${name}-heard`);
  const args = [join(TOOLS, 'transcriber.py'), '--sentences', sentencesFile(sentences), '--key', API_KEY, '--keep', folder];
  if (prefixes) args.push('--prefixes');
  if (delay) args.push('--delay', String(delay));
  const child = start('python3', args, { log: join(output('e2e'), `${name}-transcriber.log`) });
  const url = await until('the transcription server', () => {
    if (child.ended()) throw new Hopeless(child.text());
    return child.text().match(/listening on (\S+)/)?.[1];
  });
  return {
    url,
    config: { provider: 'openai', url: `${url}/v1`, model: 'story', api_key: API_KEY, timeout_ms: 20_000 },
    log: async () => (await fetch(`${url}/log`)).json(),
    stop: () => child.stop(),
  };
}
