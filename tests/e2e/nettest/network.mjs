// A server, people near it, and people at the far end of a link with faults.
import { chmodSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { CHROMIUM, ROOT, TOOLS, VIVA } from '../lib/paths.mjs';
import { must, start } from '../lib/process.mjs';
import { prepare, viva } from '../lib/server.mjs';
import { Hopeless, until } from '../lib/wait.mjs';

const ADDRESS = '203.0.113.1';
const PORT = 7880;
const DEVICE = 'far0';
const TOOL = join(TOOLS, 'strict_network.sh');
const LINK = process.env.FAULTLINK_BIN ?? join(ROOT, 'target/debug/faultlink');
// Measurements share the machine with whatever else runs on it; what is starved measures the machine.
const FIRST = ['nice', '-n', '-10'];

/** Makes the network and starts a server in it. `seed`: of what the link does by chance. */
export async function faultyNetwork(seed) {
  if (process.getuid() !== 0) throw new Error('network namespaces need root: run this as root, as `sudo -E make nettest`');
  if (!existsSync(LINK)) throw new Error(`${LINK} is missing: run this by \`make nettest\`, which builds it`);
  const network = new FaultyNetwork();
  try {
    await network.up(seed);
  } catch (error) {
    await network.down();
    throw error;
  }
  return network;
}

class FaultyNetwork {
  constructor() {
    this.name = `viva-net-${process.pid}`;
    this.base = `http://${ADDRESS}:${PORT}`;
  }

  async up(seed) {
    await must(TOOL, ['up', this.name]);
    await must(TOOL, ['far', this.name, DEVICE]);
    const args = [LINK, `${this.name}-s`, `${this.name}-f`, DEVICE, String(seed)];
    this.link = spawn(FIRST[0], [...FIRST.slice(1), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.said = createInterface({ input: this.link.stdout })[Symbol.asyncIterator]();
    if ((await this.said.next()).value !== 'ready') throw new Error('the link with faults did not start');
    await must(TOOL, ['far', this.name, DEVICE]);

    const prepared = await prepare({
      server: { http_listen: `${ADDRESS}:${PORT}` },
      rtc: { advertise_ips: [ADDRESS] },
    });
    Object.assign(this, { folder: prepared.folder, file: prepared.file });
    this.server = start('ip', ['netns', 'exec', `${this.name}-s`, ...FIRST, VIVA, 'serve', '--config', this.file], { cwd: ROOT });
    await until('the server to be ready', async () => {
      if (this.server.ended()) throw new Hopeless(`the server ended: ${this.server.text()}`);
      return (await this.get('/readyz')) === 'ready\n';
    });
  }

  /** What the server answers on its own machine. */
  async get(path) {
    const fetch = ['netns', 'exec', `${this.name}-s`, 'curl', '-s', '--max-time', '5', this.base + path];
    return (await must('ip', fetch).catch(() => '')).toString();
  }

  /** A program that starts a browser at this place: `near` or `far`. */
  browser(place) {
    const path = join(this.folder, `browser-${place}`);
    const side = { near: 'c', far: 'f' }[place];
    // The page is not served by HTTPS here, and a browser gives microphone and camera to no other.
    const trusted = `--unsafely-treat-insecure-origin-as-secure=${this.base}`;
    writeFileSync(path, `#!/bin/sh\nexec ip netns exec ${this.name}-${side} ${FIRST.join(' ')} ${CHROMIUM} ${trusted} "$@"\n`);
    chmodSync(path, 0o755);
    return path;
  }

  async token(who, room) {
    const minted = await viva(['token', '--config', this.file, '--identity', who, '--room', room]);
    if (minted.code !== 0) throw new Error(minted.text);
    return minted.text.trim().split('\n').at(-1);
  }

  /** What is wrong with packets to the far end from now on; the way back has the same delay and no other fault. */
  faults(text, delay = 20) {
    this.link.stdin.write(`to-a delay=${delay}\nto-b delay=${delay} ${text}\n`);
  }

  /** Packets so far to the far end: {taken, lost, full}. */
  async counts() {
    this.link.stdin.write('counts\n');
    const [taken, lost, full] = JSON.parse((await this.said.next()).value).to_b;
    return { taken, lost, full };
  }

  async down() {
    await this.server?.stop();
    this.link?.stdin.end();
    await must(TOOL, ['down', this.name]);
    if (this.folder) rmSync(this.folder, { recursive: true, force: true });
  }
}
