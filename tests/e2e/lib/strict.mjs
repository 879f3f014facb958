// A network as companies have it: server and browsers in network namespaces of their own, a firewall between.
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { certificates, trustingHome } from './certificates.mjs';
import { CHROMIUM, ROOT, TOOLS, VIVA } from './paths.mjs';
import { must, run, start } from './process.mjs';
import { prepare } from './server.mjs';
import { Hopeless, until } from './wait.mjs';

/** The server's address within. */
export const ADDRESS = '203.0.113.1';
/** Another address of the same machine, for a relay that others wrote. The certificate is good for both. */
export const RELAY_ADDRESS = '203.0.113.3';
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
    const own = { server: { http_listen: `${ADDRESS}:443` }, rtc: { advertise_ips: [ADDRESS] } };
    const prepared = await prepare();
    this.folder = prepared.folder;
    this.file = join(prepared.folder, 'strict.yaml');
    const { ca, cert, key } = (this.certificate = await certificates(prepared.folder, [ADDRESS, RELAY_ADDRESS]));
    own.server.tls = { cert_file: cert, key_file: key };
    const base = JSON.parse(readFileSync(prepared.file, 'utf8'));
    const merged = {
      ...base,
      server: { ...base.server, ...own.server },
      rtc: { ...base.rtc, ...own.rtc, ...config?.rtc },
      ...(config?.turn_server && { turn_server: config.turn_server }),
    };
    writeFileSync(this.file, JSON.stringify(merged));
    const home = await trustingHome(prepared.folder, ca);
    this.browser = join(prepared.folder, 'browser');
    writeFileSync(this.browser, `#!/bin/sh\nHOME=${home} exec ip netns exec ${this.name}-c ${CHROMIUM} "$@"\n`);
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
    const fetch = ['curl', '-s', '--cacert', this.certificate.ca, '--max-time', '5', this.base + path];
    const { stdout } = await run('ip', ['netns', 'exec', `${this.name}-s`, ...fetch]);
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

  /** Starts a coturn on port 443 of RELAY_ADDRESS, for TLS only. */
  async coturn(secret) {
    const [s, folder] = [`${this.name}-s`, this.folder];
    await must('ip', ['-n', s, 'address', 'add', `${RELAY_ADDRESS}/24`, 'dev', 'to-c']);
    const relay = start('ip', [
      'netns', 'exec', s, 'turnserver', '-n', '--use-auth-secret', `--static-auth-secret=${secret}`, '--realm=test',
      `--listening-ip=${RELAY_ADDRESS}`, `--relay-ip=${RELAY_ADDRESS}`, '--tls-listening-port=443', '--no-udp', '--no-tcp',
      '--no-dtls', '--no-cli', `--cert=${this.certificate.cert}`, `--pkey=${this.certificate.key}`,
      '--log-file=stdout', '--simple-log', '--verbose', `--pidfile=${folder}/coturn.pid`, `--userdb=${folder}/coturn.db`,
    ]);
    this.relay = relay;
    await until('coturn to listen', () => {
      if (relay.ended()) throw new Hopeless(`coturn ended: ${relay.text()}`);
      return relay.text().includes(`TLS listener opened on : ${RELAY_ADDRESS}:443`);
    });
    return relay;
  }

  async down() {
    await this.process?.stop();
    await this.relay?.stop();
    await must(TOOL, ['down', this.name]);
    if (this.folder) rmSync(this.folder, { recursive: true, force: true });
  }
}
