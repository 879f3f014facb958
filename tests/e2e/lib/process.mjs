// Child processes of a test: output kept in a file, always ended with the test.
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createServer } from 'node:net';
import { createSocket } from 'node:dgram';

/** Starts a program. `text()` is all it printed so far; `stop()` ends it and waits. */
export function start(program, args, { log, env = {}, cwd } = {}) {
  const child = spawn(program, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const file = log && createWriteStream(log, { flags: 'a' });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk;
      file?.write(chunk);
    });
  }
  let ended = false;
  const exit = new Promise((resolve) => {
    child.on('error', (error) => {
      text += String(error);
      ended = true;
      resolve({ code: null, signal: null });
    });
    child.on('close', (code, signal) => {
      ended = true;
      file?.end();
      resolve({ code, signal });
    });
  });
  return {
    child,
    exit,
    text: () => text,
    ended: () => ended,
    async stop(signal = 'SIGTERM', patience = 10_000) {
      if (!ended) child.kill(signal);
      const timer = setTimeout(() => child.kill('SIGKILL'), patience);
      const result = await exit;
      clearTimeout(timer);
      return result;
    },
  };
}

/** Runs a program to its end. */
export async function run(program, args, { input, ...options } = {}) {
  const child = spawn(program, args, { ...options, env: { ...process.env, ...options.env } });
  const out = [];
  const err = [];
  child.stdout.on('data', (chunk) => out.push(chunk));
  child.stderr.on('data', (chunk) => err.push(chunk));
  if (input !== undefined) child.stdin.on('error', () => {}).end(input);
  else child.stdin.end();
  const code = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { code, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() };
}

/** The same, where failing is not expected. */
export async function must(program, args, options) {
  const result = await run(program, args, options);
  if (result.code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${result.code}: ${result.stderr}`);
  return result.stdout;
}

/** A TCP port that is free now. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** A UDP port that is free now. */
export function freeUdpPort() {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.on('error', reject);
    socket.bind(0, () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
