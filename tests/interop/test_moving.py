"""A participant that a service moves to another room, as unmodified SDKs notice it."""

import asyncio
import os
import tempfile
import uuid

import pytest
from livekit import api, rtc

from conftest import KEY, ONE, SECRET, TWO, Client, Server
from media import Colour, Tone, hears, sees


def of(kind, who):
    return lambda track, publication, participant: track.kind == kind and participant.identity == who


AUDIO, VIDEO = rtc.TrackKind.KIND_AUDIO, rtc.TrackKind.KIND_VIDEO


async def move(server, who, room, to):
    async with api.LiveKitAPI(server.replace("ws", "http", 1), KEY, SECRET) as service:
        request = api.MoveParticipantRequest(room=room, identity=who, destination_room=to)
        await service.room.move_participant(request)


async def leave(clients):
    for client in clients:
        for source in client.sources:
            source.stop()
        await client.room.disconnect()


@pytest.mark.parametrize("options", [ONE, TWO], ids=["one-connection", "two-connections"])
async def test_who_is_moved_goes_on_talking_in_the_other_room(server, options):
    here, there = (f"move-{uuid.uuid4().hex[:8]}" for _ in range(2))
    ada, bob, eve = Client(server, here, options), Client(server, here), Client(server, there, options)
    await bob.connect("bob")
    ada.room.on("moved", ada.recorder("moved"))
    ada.room.on("data_track_published", ada.recorder("data_track_published"))
    eve.room.on("data_track_published", eve.recorder("data_track_published"))
    await ada.connect("ada")
    try:
        for source in (Tone(440), Colour(80)):
            await source.publish(ada)
        pose = await ada.me.publish_data_track(name="pose")
        await Tone(660).publish(bob)
        await bob.event("track_subscribed", of(AUDIO, "ada"))
        await ada.event("track_subscribed", of(AUDIO, "bob"))
        # The first time the room is made for it; it is on the same worker then.
        await move(server, "ada", here, there)
        await ada.event("moved")
        await eve.connect("eve")
        await Tone(880).publish(eve)
        (gone,) = await bob.event("participant_disconnected")
        assert gone.identity == "ada"
        assert list(ada.room.remote_participants) in ([], ["eve"])
        audio, _, _ = await eve.event("track_subscribed", of(AUDIO, "ada"))
        video, _, _ = await eve.event("track_subscribed", of(VIDEO, "ada"))
        other, _, _ = await ada.event("track_subscribed", of(AUDIO, "eve"))
        assert await asyncio.gather(hears(audio, 440), sees(video, 80), hears(other, 880)) == [True] * 3
        assert not ada.all("reconnecting") and not ada.all("disconnected")
        await ada.me.publish_data(b"hello there", reliable=True)
        await eve.event("data_received", lambda packet: packet.data == b"hello there")
        (track,) = await eve.event("data_track_published")
        assert track.info.sid == pose.info.sid
        # What comes back after a lost socket comes back here.
        await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
        await ada.event("reconnected")
        assert await hears(audio, 440)
        # And back again, to people who are there. Bob has one connection: with two, this SDK does not tell of a track that
        # it had before.
        since = len(bob.events)
        await move(server, "ada", there, here)
        audio, _, _ = await bob.event("track_subscribed", of(AUDIO, "ada"), since)
        assert await hears(audio, 440)
        await eve.event("participant_disconnected", lambda who: who.identity == "ada")
        since = len(ada.events)
        await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
        await ada.event("reconnected", since=since)
        assert "bob" in ada.room.remote_participants, "the token that she has is one for the room that she is in"
    finally:
        await leave([ada, bob, eve])


@pytest.mark.skipif("VIVA_URL" in os.environ, reason="the server is not ours to configure")
async def test_who_is_moved_to_another_worker_joins_there_anew():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, {"VIVA_RTC__WORKERS": "2", "VIVA_RTC__UDP_PORT_BASE": "0"})
        server.start()
        # The second room goes to the worker that the first is not on.
        ada, eve = Client(server.url, "here"), Client(server.url, "there")
        try:
            await ada.connect("ada")
            await Tone(440).publish(ada)
            await eve.connect("eve")
            await move(server.url, "ada", "here", "there")
            audio, _, _ = await eve.event("track_subscribed", of(AUDIO, "ada"))
            assert await hears(audio, 440)
            await ada.event("reconnected")
            assert "eve" in ada.room.remote_participants
        finally:
            await leave([ada, eve])
            server.stop()
