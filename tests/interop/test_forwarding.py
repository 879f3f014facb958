"""A participant that a service shows in another room, too, as unmodified SDKs notice it."""

import asyncio
import os
import tempfile
import uuid

import pytest
from livekit import api, rtc

from conftest import KEY, ONE, SECRET, TWO, Client, Server
from media import Colour, Tone, hears, sees
from test_moving import AUDIO, VIDEO, leave, move, of


async def forward(server, who, room, to):
    async with api.LiveKitAPI(server.replace("ws", "http", 1), KEY, SECRET) as service:
        request = api.ForwardParticipantRequest(room=room, identity=who, destination_room=to)
        await service.room.forward_participant(request)


async def remove(server, who, room):
    async with api.LiveKitAPI(server.replace("ws", "http", 1), KEY, SECRET) as service:
        await service.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=who))


@pytest.fixture(params=["one-worker", "two-workers"])
def workers(request):
    """A server of its own: of two workers the second room is then on the one that the first is not on."""
    if "VIVA_URL" in os.environ:
        pytest.skip("the server is not ours to configure")
    count = "2" if request.param == "two-workers" else "1"
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, {"VIVA_RTC__WORKERS": count, "VIVA_RTC__UDP_PORT_BASE": "0"})
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("options", [ONE, TWO], ids=["one-connection", "two-connections"])
async def test_who_is_forwarded_is_heard_and_seen_in_both_rooms(workers, options):
    here, there = (f"forward-{uuid.uuid4().hex[:8]}" for _ in range(2))
    ada, bob = (Client(workers.url, here, options) for _ in range(2))
    eve = Client(workers.url, there, options)
    try:
        await ada.connect("ada")
        await eve.connect("eve")
        await bob.connect("bob")
        microphone = await Tone(440).publish(ada)
        await forward(workers.url, "ada", here, there)
        # What comes later follows.
        await Colour(80).publish(ada)
        voice, publication, double = await eve.event("track_subscribed", of(AUDIO, "ada"))
        picture, _, _ = await eve.event("track_subscribed", of(VIDEO, "ada"))
        heard, _, _ = await bob.event("track_subscribed", of(AUDIO, "ada"))
        assert double.name == "ada's name" and publication.sid != microphone.sid
        assert await asyncio.gather(hears(voice, 440), sees(picture, 80), hears(heard, 440)) == [True] * 3
        assert list(ada.room.remote_participants) == ["bob"], "nobody of the other room is seen here"
        arrived = 'viva_sfu_lane_packets_total{direction="out"}'
        await eve.until(lambda: workers.metric(arrived) > 50, "packets by lanes")
        await eve.event("active_speakers_changed", lambda speakers: any(who.identity == "ada" for who in speakers))

        ada.sources[0].track.mute()
        await eve.event("track_muted", lambda who, _: who.identity == "ada")
        await bob.event("track_muted", lambda who, _: who.identity == "ada")
        ada.sources[0].track.unmute()
        await eve.event("track_unmuted", lambda who, _: who.identity == "ada")
        assert await hears(voice, 440)
        await ada.me.set_name("Countess")
        await eve.event("participant_name_changed")

        # What is said there is for those who are there.
        await eve.me.publish_data(b"hello", reliable=True)
        await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
        await ada.event("reconnected")
        assert await hears(voice, 440), "a resume changes nothing"
        assert not ada.all("data_received")

        await remove(workers.url, "ada", there)
        await eve.event("participant_disconnected", lambda who: who.identity == "ada")
        assert await hears(heard, 440) and not ada.all("disconnected")
        since = len(eve.events)
        await forward(workers.url, "ada", here, there)
        voice, _, _ = await eve.event("track_subscribed", of(AUDIO, "ada"), since)
        assert await hears(voice, 440)
        since = len(eve.events)
        await leave([ada])
        await eve.event("participant_disconnected", lambda who: who.identity == "ada", since)
        await bob.event("participant_disconnected", lambda who: who.identity == "ada")
    finally:
        await leave([ada, bob, eve])


async def test_who_comes_later_finds_who_is_forwarded_and_who_moves_after_comes_in_person(workers):
    here, there = (f"forward-{uuid.uuid4().hex[:8]}" for _ in range(2))
    ada, eve = Client(workers.url, here), Client(workers.url, there)
    try:
        await ada.connect("ada")
        await Tone(440).publish(ada)
        await Colour(80).publish(ada)
        # The room is made for her.
        await forward(workers.url, "ada", here, there)
        await eve.connect("eve")
        voice, _, _ = await eve.event("track_subscribed", of(AUDIO, "ada"))
        picture, _, _ = await eve.event("track_subscribed", of(VIDEO, "ada"))
        assert await asyncio.gather(hears(voice, 440), sees(picture, 80)) == [True] * 2
        since = len(eve.events)
        await move(workers.url, "ada", here, there)
        voice, _, herself = await eve.event("track_subscribed", of(AUDIO, "ada"), since)
        assert await hears(voice, 440)
        assert list(eve.room.remote_participants) == ["ada"]
        await ada.me.publish_data(b"I am here", reliable=True)
        await eve.event("data_received", lambda packet: packet.data == b"I am here")
    finally:
        await leave([ada, eve])
