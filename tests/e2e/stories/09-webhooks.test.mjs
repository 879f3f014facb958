// An integrator is told of an interview: the receiver of LiveKit's server SDK for Node.js, unmodified, checks and reads it.
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe } from 'node:test';
import { text } from 'node:stream/consumers';
import { WebhookReceiver } from 'livekit-server-sdk';
import { KEY, SECRET, serve } from '../lib/server.mjs';
import { steps } from '../lib/steps.mjs';
import { INTERVIEWER, ONE_PLAN } from '../lib/story.mjs';
import { until } from '../lib/wait.mjs';

// Debian 12 has Node.js 18, where it is not global yet.
globalThis.crypto ??= webcrypto;

describe('webhooks of an interview', () => {
  let integrator, server, made;
  const events = [];
  const refusals = [];
  const names = () => events.map((event) => [event.event, event.participant?.identity ?? ''].join(' ').trim());

  const step = steps('webhooks', () => ({ server }));
  before(async () => {
    const receiver = new WebhookReceiver(KEY, SECRET);
    integrator = createServer(async (request, response) => {
      try {
        events.push(await receiver.receive(await text(request), request.headers.authorization));
        response.end();
      } catch (error) {
        refusals.push(error);
        response.writeHead(401).end();
      }
    });
    integrator.listen(0, '127.0.0.1');
    await once(integrator, 'listening');
    const urls = [`http://127.0.0.1:${integrator.address().port}/hooks`];
    // The interviewer may take two seconds to leave.
    server = await serve('webhooks', { server: { shutdown_grace_secs: 10 }, webhooks: { urls } });
  });
  after(async () => {
    await server?.stop();
    integrator?.close();
  });

  step('the interviewer is told like everybody who comes', async () => {
    const { plans, personas } = await server.get('/v1/practice');
    const plan = plans.find((p) => p.title === ONE_PLAN).id;
    made = await server.post('/v1/interviews', { plan, persona: personas[0].id, name: 'Ada' });
    await until('the interviewer to be told', () => events.length >= 3);
    const expected = ['room_started', `participant_joined ${INTERVIEWER}`, `track_published ${INTERVIEWER}`];
    assert.deepEqual(names(), expected);
    assert.equal(events[0].room.name, made.room);
    assert.equal(events[2].participant.sid, events[1].participant.sid);
  });

  step('at the end it leaves, and the room is told last', async () => {
    await server.post(`/v1/interviews/${made.id}/end`, {}, made.token);
    await server.down();
    assert.deepEqual(names().slice(3), [
      `track_unpublished ${INTERVIEWER}`,
      `participant_left ${INTERVIEWER}`,
      'room_finished',
    ]);
    assert.deepEqual(refusals, []);
    assert.equal(new Set(events.map((event) => event.id)).size, events.length);
  });
});
