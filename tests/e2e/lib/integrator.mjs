// An integrator's web page on an origin of its own, built from their components as they would.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { build } from 'esbuild';
import { FIXTURES } from './paths.mjs';

const FOLDER = join(FIXTURES, 'assistant');

/** Builds the page and serves it: {base, stop}. */
export async function integratorsPage() {
  const built = await build({
    entryPoints: [join(FOLDER, 'app.jsx')],
    bundle: true,
    write: false,
    format: 'iife',
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'silent',
  });
  const pages = { '/': ['text/html', readFileSync(join(FOLDER, 'index.html'))], '/app.js': ['text/javascript', built.outputFiles[0].text] };
  const server = createServer((request, response) => {
    const [type, content] = pages[new URL(request.url, 'http://page').pathname] ?? [];
    response.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain' }).end(content ?? 'not here');
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return { base: `http://localhost:${server.address().port}`, stop: () => server.close() };
}
