// Certificates of an authority that is made for one test, and a home folder whose browser trusts it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { must } from './process.mjs';

const KEYS = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** An authority of its own, and its certificate for these addresses: {ca, cert, key}, files in `folder`. */
export async function certificates(folder, addresses) {
  const [ca, caKey, cert, key, request, names] = ['ca.pem', 'ca-key.pem', 'cert.pem', 'key.pem', 'request.pem', 'names'].map(
    (file) => join(folder, file),
  );
  await must('openssl', [
    'req', '-x509', ...KEYS, '-days', '2', '-subj', '/CN=an authority of the tests', '-keyout', caKey, '-out', ca,
    '-addext', 'keyUsage=critical,keyCertSign',
  ]);
  await must('openssl', ['req', ...KEYS, '-subj', '/CN=viva', '-keyout', key, '-out', request]);
  writeFileSync(names, `subjectAltName=${addresses.map((address) => `IP:${address}`)}\nextendedKeyUsage=serverAuth\n`);
  await must('openssl', [
    'x509', '-req', '-in', request, '-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-days', '2', '-extfile', names, '-out', cert,
  ]);
  return { ca, cert, key };
}

/** Makes a home folder: Chromium reads the authorities that it trusts beside its own from there. */
export async function trustingHome(folder, ca) {
  const home = join(folder, 'home');
  const store = `sql:${join(home, '.pki/nssdb')}`;
  mkdirSync(join(home, '.pki/nssdb'), { recursive: true });
  await must('certutil', ['-d', store, '-N', '--empty-password']);
  await must('certutil', ['-d', store, '-A', '-n', 'tests', '-t', 'C,,', '-i', ca]);
  return home;
}
