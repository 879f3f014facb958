"""The scenarios of the Python SDK's own end-to-end tests, by their names, in both forms of the protocol.

`single-connection`: as the SDK asks for it, on `/rtc/v1`. `older-form-only`: from a server that answers 404 there, so that
the SDK falls back to `/rtc` and two peer connections by itself.
"""

import asyncio
import os
import tempfile
import time
import uuid

import numpy as np
import pytest
from livekit import rtc
from livekit.rtc.participant import PublishDataTrackError

from conftest import PATIENCE_S, Client, Server
from media import RATE, Tone

FEATURES = [rtc.FrameMetadataFeature.FMF_USER_TIMESTAMP, rtc.FrameMetadataFeature.FMF_FRAME_ID]
CONNECTED, DISCONNECTED = rtc.ConnectionState.CONN_CONNECTED, rtc.ConnectionState.CONN_DISCONNECTED


@pytest.fixture(scope="module")
def older_server():
    """The address of a server that takes the older form alone."""
    if "VIVA_URL" in os.environ:
        pytest.skip("the server is not ours to configure")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, {"VIVA_SIGNALLING__SINGLE_CONNECTION": "false"})
        server.start()
        yield server.url
        server.stop()


@pytest.fixture(params=["single-connection", "older-form-only"])
async def guests(request):
    """`guests("ada")` makes a client of this test's own room; `await guests.enter("ada")` lets it in, too."""
    url = request.getfixturevalue("server" if request.param == "single-connection" else "older_server")
    room_name = f"e2e-{uuid.uuid4().hex[:8]}"
    clients = []

    def guest(identity):
        client = Client(url, room_name)
        client.identity = identity
        for name in ("local_track_published", "local_track_unpublished", "connection_state_changed", "room_updated",
                     "data_track_published", "data_track_unpublished"):
            client.room.on(name, client.recorder(name))
        clients.append(client)
        return client

    async def enter(identity):
        return await guest(identity).connect(identity)

    guest.enter = enter
    yield guest
    for client in clients:
        for source in client.sources:
            source.stop()
        await client.room.disconnect()


def a_picture(width=320, height=240):
    red = bytes([255, 0, 0, 255]) * (width * height)
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, red)


async def test_publish_track(guests):
    subscriber, publisher = await guests.enter("subscriber"), await guests.enter("publisher")
    publication = await Tone(440).publish(publisher)
    assert publication.sid.startswith("TR_")
    announced, _ = await subscriber.event("track_published")
    track, subscribed, who = await subscriber.event("track_subscribed")
    assert isinstance(track, rtc.RemoteAudioTrack) and who.identity == "publisher"
    assert announced.sid == subscribed.sid == publication.sid


async def test_video_frame_metadata(guests):
    subscriber, publisher = await guests.enter("subscriber"), await guests.enter("publisher")
    source = rtc.VideoSource(320, 240)
    track = rtc.LocalVideoTrack.create_video_track("cam", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, frame_metadata_features=FEATURES)
    publication = await publisher.me.publish_track(track, options)
    assert publication.frame_metadata_features == FEATURES
    track, publication, _ = await subscriber.event("track_subscribed")
    assert publication.frame_metadata_features == FEATURES

    async def film():
        while True:
            source.capture_frame(a_picture(), metadata=rtc.FrameMetadata(user_timestamp=123456789, frame_id=77))
            await asyncio.sleep(0.1)

    camera = asyncio.create_task(film())
    stream = rtc.VideoStream.from_track(track=track, capacity=1)
    try:
        # The first pictures of a stream may come before what is said of them is read.
        async def telling():
            while (event := await anext(stream)).metadata is None:
                pass
            return event

        event = await asyncio.wait_for(telling(), PATIENCE_S)
    finally:
        camera.cancel()
        await stream.aclose()
        await source.aclose()
    assert (event.metadata.user_timestamp, event.metadata.frame_id) == (123456789, 77)


async def test_full_reconnect_preserves_local_publication_object(guests):
    publisher = await guests.enter("publisher")
    source = rtc.VideoSource(320, 240)
    track = rtc.LocalVideoTrack.create_video_track("cam", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, frame_metadata_features=FEATURES)
    publication = await publisher.me.publish_track(track, options)
    before = publication.sid
    await publisher.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
    await publisher.event("reconnected")
    published = publisher.me.track_publications
    await publisher.until(
        lambda: publication.sid != before and published.get(publication.sid) is publication, "its own publication again"
    )
    assert before not in published and publication.frame_metadata_features == FEATURES
    await source.aclose()


async def test_audio_stream_subscribe(guests):
    subscriber, publisher = await guests.enter("subscriber"), await guests.enter("publisher")
    await Tone(440).publish(publisher)
    track, _, _ = await subscriber.event("track_subscribed")
    stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
    heard = []
    async with asyncio.timeout(PATIENCE_S):
        async for event in stream:
            loudness = np.abs(np.frombuffer(event.frame.data, dtype=np.int16).astype(np.float32)).mean()
            # What comes before the first packet is silence.
            if heard or loudness > 1_000:
                heard.append(loudness)
            if len(heard) == 200:
                break
    await stream.aclose()
    # A sine has 2/π of its amplitude on average. The middle of all frames forgives those that a busy machine lost.
    assert 0.9 < np.median(heard) / (12_000 * 2 / np.pi) < 1.1


async def test_room_lifecycle_events(guests):
    one, two = guests("one"), guests("two")
    await one.connect("one")
    await one.event("connection_state_changed", lambda state: state == CONNECTED)
    await two.connect("two")
    await one.event("participant_connected", lambda who: who.identity == "two")
    assert "one" in two.room.remote_participants
    publication = await Tone(440).publish(one)
    await one.event("local_track_published")
    await two.event("track_published")
    await two.event("track_subscribed")
    await one.me.unpublish_track(publication.sid)
    await one.event("local_track_unpublished")
    await two.event("track_unsubscribed")
    await two.event("track_unpublished")
    await two.room.disconnect()
    await one.event("participant_disconnected", lambda who: who.identity == "two")
    assert one.all("room_updated") or one.room.name == one.room_name
    await one.room.disconnect()
    await one.event("connection_state_changed", lambda state: state == DISCONNECTED)


async def test_connection_state_transitions(guests):
    guest = guests("guest")
    assert guest.room.connection_state == DISCONNECTED
    await guest.connect("guest")
    await guest.event("connection_state_changed", lambda state: state == CONNECTED)
    assert guest.room.connection_state == CONNECTED
    await guest.room.disconnect()
    await guest.until(lambda: guest.room.connection_state == DISCONNECTED, "the end of the connection")


async def test_data_track(guests):
    subscriber, publisher = await guests.enter("subscriber"), await guests.enter("publisher")
    published = await publisher.me.publish_data_track(name="pose")
    assert published.is_published() and published.info.name == "pose" and published.info.sid.startswith("DTR_")
    (track,) = await subscriber.event("data_track_published")
    assert (track.info.name, track.publisher_identity, track.is_published()) == ("pose", "publisher", True)
    stream = track.subscribe()
    got = asyncio.Event()

    async def push():
        # Frames may be lost, also while the channel opens: until one is there, and some more.
        left = 5
        while left:
            left -= got.is_set()
            payload = bytes([left] * 64)
            published.try_push(rtc.DataTrackFrame(payload=payload, user_timestamp=int(time.time() * 1000)))
            await asyncio.sleep(0.05)
        await published.unpublish()

    pushing = asyncio.create_task(push())
    async with asyncio.timeout(PATIENCE_S):
        # Ends where the track does.
        async for frame in stream:
            got.set()
            assert len(frame.payload) == 64 and len(set(frame.payload)) == 1
            assert 0 <= time.time() * 1000 - frame.user_timestamp < PATIENCE_S * 1000
        await pushing
    assert got.is_set()
    (sid,) = await subscriber.event("data_track_unpublished")
    assert sid == published.info.sid


async def test_data_tracks_are_numbered_for_each_who_takes_them(guests):
    """Two publishers whose tracks have the same number, a large frame, and a name that is taken."""
    ada, bob, eve = await guests.enter("ada"), await guests.enter("bob"), await guests.enter("eve")
    ours = {client.identity: await client.me.publish_data_track(name="pose") for client in (ada, bob)}
    with pytest.raises(PublishDataTrackError):
        await ada.me.publish_data_track(name="pose")
    await eve.until(lambda: len(eve.all("data_track_published")) == 2, "both tracks")
    streams = {track.publisher_identity: track.subscribe() for (track,) in eve.all("data_track_published")}

    async def push():
        while True:
            for who, track in ours.items():
                try:
                    track.try_push(rtc.DataTrackFrame(payload=who.encode() * 10_000))
                except rtc.PushFrameError:
                    pass  # the last one is still on its way
            await asyncio.sleep(0.1)

    pushing = asyncio.create_task(push())
    try:
        for who, stream in streams.items():
            frame = await asyncio.wait_for(stream.read(), PATIENCE_S)
            assert frame.payload == who.encode() * 10_000
    finally:
        pushing.cancel()
        for stream in streams.values():
            stream.close()


async def test_a_data_track_outlives_its_publishers_reconnects(guests):
    subscriber, publisher = await guests.enter("subscriber"), await guests.enter("publisher")
    published = await publisher.me.publish_data_track(name="pose")
    (track,) = await subscriber.event("data_track_published")
    stream = track.subscribe()

    async def push():
        while True:
            try:
                published.try_push(rtc.DataTrackFrame(payload=b"here"))
            except rtc.PushFrameError:
                pass  # not connected just now
            await asyncio.sleep(0.05)

    pushing = asyncio.create_task(push())
    try:
        assert (await asyncio.wait_for(stream.read(), PATIENCE_S)).payload == b"here"
        await publisher.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
        await publisher.event("reconnected")
        assert not subscriber.all("data_track_unpublished")
        assert (await asyncio.wait_for(stream.read(), PATIENCE_S)).payload == b"here"
    finally:
        pushing.cancel()
        stream.close()
