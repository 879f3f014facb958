"""The Python SDK drops tracks and takes them again, with one peer connection and with two."""

import pytest
from livekit import rtc

from media import Colour, Tone, hears, sees


def sound(track):
    return hears(track, 440)


def picture(track):
    return sees(track, 80)


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_a_track_that_is_dropped_can_be_taken_again(people, kind):
    ada, bob = await people("ada"), await people("bob")
    source = Tone(440) if kind == "audio" else Colour(80)
    there = sound if kind == "audio" else picture
    await source.publish(ada)
    track, publication, _ = await bob.event("track_subscribed")
    assert await there(track)
    for times in (1, 2):
        since = len(bob.events)
        publication.set_subscribed(False)
        await bob.event("track_unsubscribed", since=since)
        publication.set_subscribed(True)
        track, publication, _ = await bob.event("track_subscribed", since=since)
        assert await there(track), f"taken again {times} times"


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_a_track_may_be_dropped_and_taken_again_as_soon_as_it_comes(people, kind):
    ada, bob = await people("ada"), await people("bob")
    await (Tone(440) if kind == "audio" else Colour(80)).publish(ada)
    track, publication, _ = await bob.event("track_subscribed")
    for _ in range(10):
        since = len(bob.events)
        publication.set_subscribed(False)
        await bob.event("track_unsubscribed", since=since)
        publication.set_subscribed(True)
        track, publication, _ = await bob.event("track_subscribed", since=since)
    assert await (sound if kind == "audio" else picture)(track)
