"""A room that is on two media workers, as unmodified SDKs notice it: not at all."""

import asyncio
import itertools
import os
import tempfile

import pytest
from livekit import rtc

from conftest import ONE, TWO, Client, Server
from media import Colour, Tone, hears, sees
from test_moving import AUDIO, VIDEO, leave, of


@pytest.fixture
def spread():
    """A server of which each worker takes one participant of a room, and then the next one."""
    if "VIVA_URL" in os.environ:
        pytest.skip("the server is not ours to configure")
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "VIVA_RTC__WORKERS": "2", "VIVA_RTC__UDP_PORT_BASE": "0", "VIVA_ROOMS__PARTICIPANTS_PER_WORKER": "1"
        }  # fmt: skip
        server = Server(folder, settings)
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("options", [[ONE], [TWO], [ONE, TWO]], ids=["one-connection", "two-connections", "mixed"])
async def test_people_on_different_workers_are_in_one_call(spread, options):
    options = itertools.cycle(options)
    ada, bob, cyd = (Client(spread.url, "large", next(options)) for _ in range(3))
    people = {"ada": (ada, 440), "bob": (bob, 660), "cyd": (cyd, 880)}
    try:
        for client in (ada, bob, cyd):
            client.room.on("data_track_published", client.recorder("data_track_published"))
        for name, (client, hertz) in people.items():
            await client.connect(name)
            await Tone(hertz).publish(client)
        await Colour(80).publish(ada)

        async def hear(listener, speaker, hertz):
            track, _, _ = await listener.event("track_subscribed", of(AUDIO, speaker))
            return await hears(track, hertz)

        pairs = itertools.permutations(people, 2)
        heard = [hear(people[listener][0], speaker, people[speaker][1]) for listener, speaker in pairs]
        assert await asyncio.gather(*heard) == [True] * 6
        for viewer in (bob, cyd):
            picture, _, _ = await viewer.event("track_subscribed", of(VIDEO, "ada"))
            assert await sees(picture, 80)
        await ada.until(lambda: spread.metric('viva_sfu_lane_packets_total{direction="out"}') > 50, "packets by lanes")

        ada.sources[0].track.mute()
        for other in (bob, cyd):
            await other.event("track_muted", lambda who, _: who.identity == "ada")
        ada.sources[0].track.unmute()
        assert await hear(bob, "ada", 440)
        await ada.me.publish_data(b"hello all", reliable=True)
        for other in (bob, cyd):
            await other.event("data_received", lambda packet: packet.data == b"hello all")

        pose = await ada.me.publish_data_track(name="pose")
        for other in (bob, cyd):
            (track,) = await other.event("data_track_published")
            stream = track.subscribe()
            frames = asyncio.create_task(anext(aiter(stream)))
            for _ in range(100):
                pose.try_push(rtc.DataTrackFrame(payload=b"turned"))
                if frames.done():
                    break
                await asyncio.sleep(0.1)
            assert bytes((await asyncio.wait_for(frames, 5)).payload) == b"turned"

        # Somebody drops a track and takes it again.
        publication = next(iter(p for p in bob.room.remote_participants["ada"].track_publications.values() if p.kind == VIDEO))
        since = len(bob.events)
        publication.set_subscribed(False)
        await bob.event("track_unsubscribed", since=since)
        publication.set_subscribed(True)
        picture, _, _ = await bob.event("track_subscribed", of(VIDEO, "ada"), since)
        assert await sees(picture, 80)

        await leave([ada])
        for other in (bob, cyd):
            await other.event("participant_disconnected", lambda who: who.identity == "ada")
        # And comes back.
        again = Client(spread.url, "large", next(options))
        people["ada"] = (again, 440)
        await again.connect("ada")
        assert await asyncio.gather(hear(again, "bob", 660), hear(again, "cyd", 880)) == [True, True]
    finally:
        await leave([client for client, _ in people.values()])
