"""Webhooks as an integrator gets them: checked and read by the receiver of the package `livekit-api`, unmodified."""

import asyncio
import re
import tempfile
import uuid

import aiohttp
import pytest
from aiohttp import web
from livekit import api

from conftest import KEY, PATIENCE_S, SECRET, Client, Server, token
from media import Tone, hears


class Integrator:
    """A server that is told. It fails the first attempt at some events, and checks every signature."""

    def __init__(self):
        self.hangs = False
        self.receiver = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        self.attempts = []
        self.events = []
        self.fail_first_of = set()

    async def handle(self, request):
        while self.hangs:
            await asyncio.sleep(0.05)
        assert request.content_type == "application/webhook+json"
        body = await request.text()
        # Raises where signature, time or hash is wrong; aiohttp answers 500 then, and no test passes.
        event = self.receiver.receive(body, request.headers["Authorization"])
        self.attempts.append(event)
        if event.event in self.fail_first_of:
            self.fail_first_of.remove(event.event)
            return web.Response(status=503)
        self.events.append(event)
        return web.Response()

    def names(self, room=None):
        return [event.event for event in self.events if room in (None, event.room.name)]

    async def told(self, room, last):
        """The names of the room's events, once the last of them is there."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while self.names(room)[-1:] != [last]:
            assert asyncio.get_running_loop().time() < deadline, f"{last} was not told, but {self.names(room)}"
            await asyncio.sleep(0.05)
        return self.names(room)


@pytest.fixture
async def integrator():
    integrator = Integrator()
    app = web.Application()
    app.router.add_post("/hooks", integrator.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    integrator.url = f"http://127.0.0.1:{port}/hooks?secret=hush-hush"
    yield integrator
    integrator.hangs = False
    await runner.cleanup()


@pytest.fixture
async def telling(integrator):
    """A server of this test's own that tells the integrator."""
    settings = {
        "VIVA_WEBHOOKS__URLS": f'["{integrator.url}"]',
        "VIVA_WEBHOOKS__API_KEY": KEY,
        "VIVA_ROOMS__DEPARTURE_TIMEOUT_SECS": "1",
        "VIVA_SERVER__SHUTDOWN_GRACE_SECS": "3",
    }
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, settings)
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)


async def test_a_call_is_told_in_order_and_verifies(integrator, telling):
    room = f"test-{uuid.uuid4().hex[:8]}"
    integrator.fail_first_of = {"room_started", "track_published"}
    ada, bob = Client(telling.url, room), Client(telling.url, room)
    await ada.connect("ada")
    assert await integrator.told(room, "participant_joined") == ["room_started", "participant_joined"]
    tone = Tone(440)
    publication = await tone.publish(ada)
    await integrator.told(room, "track_published")
    await ada.me.unpublish_track(publication.sid)
    await integrator.told(room, "track_unpublished")
    tone.stop()
    await bob.connect("bob")
    await integrator.told(room, "participant_joined")
    await bob.room.disconnect()
    await integrator.told(room, "participant_left")
    await ada.room.disconnect()
    assert await integrator.told(room, "room_finished") == [
        "room_started", "participant_joined", "track_published", "track_unpublished",
        "participant_joined", "participant_left", "participant_left", "room_finished",
    ]
    started, joined, published, unpublished, bobs, left, _, finished = integrator.events
    assert started.room.sid.startswith("RM_") and {e.room.sid for e in integrator.events} == {started.room.sid}
    assert (joined.participant.identity, joined.participant.name) == ("ada", "ada's name")
    assert published.participant.sid == joined.participant.sid and published.track.sid == publication.sid
    assert unpublished.track.sid == publication.sid
    assert bobs.participant.identity == left.participant.identity == "bob"
    assert bobs.participant.sid == left.participant.sid
    assert all(e.id.startswith("EV_") and e.created_at > 1_700_000_000 for e in integrator.events)
    # Tried again under the same id, and told once.
    ids = [e.id for e in integrator.events]
    attempts = [e.id for e in integrator.attempts]
    assert len(set(ids)) == len(ids) and len(attempts) == len(ids) + 2 and set(attempts) == set(ids)
    log = telling.log.read_text()
    assert "hush-hush" not in log and not re.search(r"\b(ada|bob)\b", log)


async def test_an_attempt_without_media_is_told_as_aborted(integrator, telling):
    room = f"test-{uuid.uuid4().hex[:8]}"
    url = telling.url.replace("ws://", "http://") + "/rtc"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(url, params={"access_token": token("eve", room), "protocol": "17"})
        assert (await socket.receive(PATIENCE_S)).type == aiohttp.WSMsgType.BINARY
        await socket.close()
    names = await integrator.told(room, "room_finished")
    assert names == ["room_started", "participant_connection_aborted", "room_finished"]
    assert integrator.events[1].participant.identity == "eve"


async def test_a_stop_of_the_server_is_told_before_it_ends(integrator, telling):
    room = f"test-{uuid.uuid4().hex[:8]}"
    integrator.fail_first_of = {"participant_left"}
    ada = Client(telling.url, room)
    await ada.connect("ada")
    await integrator.told(room, "participant_joined")
    await asyncio.to_thread(telling.stop)
    assert integrator.names(room)[-2:] == ["participant_left", "room_finished"]
    await ada.room.disconnect()


async def test_a_receiver_that_hangs_holds_up_neither_a_call_nor_the_stop(integrator, telling):
    integrator.hangs = True
    room = f"test-{uuid.uuid4().hex[:8]}"
    ada, bob = Client(telling.url, room), Client(telling.url, room)
    await ada.connect("ada")
    await bob.connect("bob")
    tone = Tone(440)
    await tone.publish(ada)
    track, _, _ = await bob.event("track_subscribed")
    assert await hears(track, 440)
    # Raises where the server takes longer than its grace time and has to be killed.
    telling.process.terminate()
    await asyncio.to_thread(telling.process.wait, 8)
    assert "before these webhooks were delivered" in telling.log.read_text()
    tone.stop()
    for client in (ada, bob):
        await client.room.disconnect()
