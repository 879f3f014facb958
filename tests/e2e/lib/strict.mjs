// A network as companies have it: server and browsers in network namespaces of their own, a firewall between.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHROMIUM, ROOT, TOOLS, VIVA } from './paths.mjs';
import { must, run, start } from './process.mjs';
import { prepare } from './server.mjs';
import { Hopeless, until } from './wait.mjs';

/** The server's address within. */
export const ADDRESS = '203.0.113.1';
const TOOL = join(TOOLS, 'strict_network.sh');

/** Makes the network and starts a server in it with a certificate of its own, on port 443. */
export async function strictNetwork(name, config) {
  if (process.getuid() !== 0) throw new Error('network namespaces need root: run this story as root, as `sudo -E make e2e`');
  const network = new StrictNetwork(name);
  await must(TOOL, ['up', network.name]);
  try {
    await network.serve(config);
  } catch (error) {
    await network.down();
    throw error;
  }
  return network;
}

class StrictNetwork {
  constructor(story) {
    this.story = story;
    this.name = `viva-${process.pid}`;
    this.base = `https://${ADDRESS}`;
  }

  async serve(config) {
    const own = { server: { http_listen: '0.0.0.0:443' }, rtc: { advertise_ips: [ADDRESS] } };
    const prepared = await prepare();
    this.file = join(prepared.folder, 'strict.yaml');
    const [cert, key] = ['cert.pem', 'key.pem'].map((file) => join(prepared.folder, file));
    await must('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=viva',
      '-addext', `subjectAltName=IP:${ADDRESS}`, '-keyout', key, '-out', cert,
    ]);
    own.server.tls = { cert_file: cert, key_file: key };
    const base = JSON.parse(readFileSync(prepared.file, 'utf8'));
    const merged = {
      ...base,
      server: { ...base.server, ...own.server },
      rtc: { ...base.rtc, ...own.rtc, ...config?.rtc },
    };
    writeFileSync(this.file, JSON.stringify(merged));
    this.browser = join(prepared.folder, 'browser');
    writeFileSync(this.browser, `#!/bin/sh\nexec ip netns exec ${this.name}-c ${CHROMIUM} "$@"\n`);
    chmodSync(this.browser, 0o755);
    const args = ['netns', 'exec', `${this.name}-s`, VIVA, 'serve', '--config', this.file];
    this.process = start('ip', args, { cwd: ROOT });
    await until(`${this.story}: the server to be ready`, async () => {
      if (this.process.ended()) throw new Hopeless(`the server ended: ${this.process.text()}`);
      return (await this.get('/readyz')) === 'ready\n';
    });
  }

  /** What the server answers on its own machine. */
  async get(path) {
    const url = `https://127.0.0.1${path}`;
    const { stdout } = await run('ip', ['netns', 'exec', `${this.name}-s`, 'curl', '-sk', '--max-time', '5', url]);
    return stdout.toString();
  }

  /** One metric without labels, or with those in `name`. */
  async metric(name) {
    const line = (await this.get('/metrics')).split('\n').find((text) => text.startsWith(`${name} `));
    return Number(line?.split(' ').at(-1));
  }

  /** From now on browsers reach these TCP ports and nothing else; without ports, everything but UDP. */
  async block(...ports) {
    await must(TOOL, ['block', this.name, ...ports.map(String)]);
  }

  async down() {
    await this.process?.stop();
    await must(TOOL, ['down', this.name]);
  }
}
