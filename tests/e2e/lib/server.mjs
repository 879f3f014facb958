// The server under test: a process of its own, with its own ports, folder and log.
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, freeUdpPort, must, start } from './process.mjs';
import { FIXTURES, output, ROOT, VIVA } from './paths.mjs';
import { Hopeless, until } from './wait.mjs';

export const KEY = 'devkey';
export const SECRET = 'secret';

/** Puts `extra` over `base`, key by key. */
function merged(base, extra) {
  if (typeof base !== 'object' || typeof extra !== 'object' || Array.isArray(extra)) return extra;
  const out = { ...base };
  for (const [key, value] of Object.entries(extra)) out[key] = key in base ? merged(base[key], value) : value;
  return out;
}

/**
 * Starts `viva serve` and waits until it is ready.
 * @param {string} name of the story; its log is `test-output/e2e/NAME.log`
 * @param config keys that this story sets, over a configuration that needs nothing from outside
 */
export async function serve(name, config = {}) {
  const prepared = await prepare(config);
  const server = new Server(name, prepared);
  await server.up();
  return server;
}

/** A folder with a configuration file: {folder, port, udp, file}. */
export async function prepare(config = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'viva-e2e-'));
  const [port, udp] = [await freePort(), await freeUdpPort()];
  cpSync(join(FIXTURES, 'plans'), join(folder, 'plans'), { recursive: true });
  cpSync(join(FIXTURES, 'personas'), join(folder, 'personas'), { recursive: true });
  const base = {
    server: { http_listen: `127.0.0.1:${port}`, shutdown_grace_secs: 2, log: { filter: 'info', json: true } },
    rtc: { workers: 1, udp_port_base: udp, tcp_port: 0, advertise_ips: ['127.0.0.1'] },
    auth: { keys: { [KEY]: SECRET } },
    speech: { stt: { provider: 'off' }, tts: { provider: 'espeak' } },
    models: { dir: join(folder, 'models') },
    interview: {
      public_practice: true,
      plans_dir: join(folder, 'plans'),
      personas_dir: join(folder, 'personas'),
    },
    store: { url: `sqlite://${join(folder, 'viva.db')}` },
  };
  const file = join(folder, 'viva.yaml');
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(merged(base, config), null, 2));
  return { folder, port, udp, file };
}

/** Runs `viva` with arguments to its end or for `patience` ms, whichever is first. */
export async function viva(args, { log, env, patience = 20_000 } = {}) {
  const child = start(VIVA, args, { log, env, cwd: ROOT });
  const timer = setTimeout(() => child.child.kill('SIGKILL'), patience);
  const { code } = await child.exit;
  clearTimeout(timer);
  return { code, text: child.text() };
}

class Server {
  constructor(name, { folder, port, udp, file }) {
    Object.assign(this, { name, folder, port, udp, file });
    this.base = `http://localhost:${port}`;
    this.log = join(output('e2e'), `${name}.log`);
    rmSync(this.log, { force: true });
    this.before = '';
  }

  async up() {
    this.process = start(VIVA, ['serve', '--config', this.file], { log: this.log, cwd: ROOT });
    await until(`${this.name}: the server to be ready`, async () => {
      if (this.process.ended()) throw new Hopeless(`the server ended: ${this.process.text()}`);
      return (await fetch(`${this.base}/readyz`).catch(() => undefined))?.ok;
    });
  }

  /** Stops it as an operator does, and starts it again on the same ports, folder and database. */
  async restart() {
    await this.down();
    await this.up();
  }

  async down(signal = 'SIGTERM') {
    const result = await this.process.stop(signal);
    this.before += this.process.text();
    return result;
  }

  async stop() {
    await this.down();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Every JSON line that it logged. */
  events() {
    return (this.before + (this.process.ended() ? '' : this.process.text()))
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
  }

  /** GET of a JSON resource with a participant's token. */
  async get(path, token) {
    const response = await fetch(this.base + path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async post(path, body, token) {
    const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(this.base + path, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? undefined : response.json();
  }

  /** All metrics: name with labels, as they are written, -> value. */
  async metrics() {
    const text = await (await fetch(`${this.base}/metrics`)).text();
    const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
  }

  /** The value of one metric, 0 where it was never counted; labels may follow as they are written. */
  async metric(name) {
    return (await this.metrics()).get(name) ?? 0;
  }

  /** What SQLite itself says, by its own command line program. */
  async sql(query) {
    const out = await must('sqlite3', ['-json', '-readonly', join(this.folder, 'viva.db'), query]);
    return out.length ? JSON.parse(out) : [];
  }
}
