// What goes wrong is told in a sentence that says what to do.
import assert from 'node:assert/strict';
import { join as path } from 'node:path';
import { createSocket } from 'node:dgram';
import { after, before, describe, test } from 'node:test';
import { launch, openPage } from '../lib/browser.mjs';
import { prepare, serve, viva } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { ONE_PLAN } from '../lib/story.mjs';
import { choosePractice, practice } from '../lib/visit.mjs';

describe('errors on the page', () => {
  let server, browser, page, call;
  const step = steps('errors', () => ({ server, page }));
  before(async () => {
    server = await serve('errors');
    browser = await launch();
    page = await openPage(browser);
    call = await practice(page, server, { plan: ONE_PLAN, listen: false });
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });
  const problem = async (p) => {
    await p.getByTestId('problem').waitFor();
    return p.getByTestId('problem').innerText();
  };
  /** A tab with the same place in the interview, as a copied tab has it. */
  async function tab(change = {}) {
    const other = await openPage(browser);
    await other.goto(server.base);
    await other.evaluate(([id, value]) => sessionStorage.setItem(`viva.call.${id}`, value), [call.id, JSON.stringify({ ...call, ...change })]);
    await other.goto(`${server.base}/room/${call.id}`);
    return other;
  }

  step('a second tab with the same identity takes over, and the first says so', async () => {
    const other = await tab();
    await other.getByTestId('room').waitFor();
    const text = await problem(page);
    assert.match(text, /in this interview in another tab/);
    assert.match(text, /press Use this tab/i);
    await page.getByRole('button', { name: 'Use this tab' }).click();
    await page.getByTestId('room').waitFor();
    assert.match(await problem(other), /another tab/);
    await other.context().close();
  });

  step('a wrong token', async () => {
    const [head, body] = call.token.split('.');
    const other = await tab({ token: `${head}.${body}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA` });
    const text = await problem(other);
    assert.match(text, /does not let you in/);
    assert.match(text, /new link|new interview/i);
    await other.context().close();
  });

  step('a wrong token, told to a client that is not the page', async () => {
    const response = await fetch(`${server.base}/rtc/v1/validate?access_token=nonsense`);
    assert.equal(response.status, 401);
    assert.match(await response.text(), /token/i);
  });

  step('a wrong invite', async () => {
    const other = await openPage(browser);
    await other.goto(`${server.base}/join/${call.id}?invite=wrong`);
    const text = await problem(other);
    assert.match(text, /link does not work/);
    assert.match(text, /ask/i);
    await other.context().close();
  });

  step('a wrong room', async () => {
    const other = await openPage(browser);
    await other.goto(`${server.base}/join/nothing-of-this-name?invite=wrong`);
    assert.match(await problem(other), /link does not work/);
    await other.goto(`${server.base}/room/nothing-of-this-name`);
    assert.match(await problem(other), /Open the link/);
    await other.context().close();
  });

  step('no permission for the microphone', async () => {
    const refused = await launch({ permission: false });
    const other = await openPage(refused, { microphone: 'device' });
    await choosePractice(other, server, { plan: ONE_PLAN });
    const fault = other.getByTestId('microphone-fault');
    await fault.waitFor();
    assert.match(await fault.innerText(), /not allowed to use the microphone\. Allow it in the address bar, then press Try again\./);
    await refused.close();
  });
});

describe('errors of the server', () => {
  test('a port in use', async () => {
    const server = await serve('errors-port');
    const second = await prepare();
    const { code, text } = await viva(['serve', '--config', second.file, '--listen', `127.0.0.1:${server.port}`]);
    await server.stop();
    assert.notEqual(code, 0);
    assert.match(text, new RegExp(`port ${server.port} is in use`));
    assert.match(text, /--listen/);
  });

  test('a media port in use', async () => {
    const { file, udp } = await prepare();
    const socket = createSocket('udp4');
    await new Promise((resolve) => socket.bind(udp, resolve));
    const { code, text } = await viva(['serve', '--config', file]);
    socket.close();
    assert.notEqual(code, 0);
    assert.match(text, new RegExp(`${udp}`));
    assert.match(text, /udp_port_base|--udp-port-base/);
  });

  test('a missing model', async () => {
    const { file, folder } = await prepare();
    const missing = path(folder, 'no-such-model.bin');
    const { code, text } = await viva(['serve', '--config', file, '--set', 'speech.stt.provider=whisper', '--set', `speech.stt.model=${missing}`]);
    assert.notEqual(code, 0);
    assert.match(text, /no-such-model\.bin/);
    assert.match(text, /viva models pull|models/);
  });

  test('a missing voice', async () => {
    const { file, folder } = await prepare();
    const missing = path(folder, 'no-such-voice.onnx');
    const { code, text } = await viva(['serve', '--config', file, '--set', 'speech.tts.provider=piper', '--set', `speech.tts.voice=${missing}`]);
    assert.notEqual(code, 0);
    assert.match(text, /no-such-voice/);
  });
});
