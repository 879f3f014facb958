"""The Python SDK `livekit`, unmodified: a client that nobody here wrote."""

import asyncio
import os

import pytest
from livekit import rtc

from conftest import PATIENCE_S, Client
from media import Colour, Tone, hears, sees

AUDIO, VIDEO = rtc.TrackKind.KIND_AUDIO, rtc.TrackKind.KIND_VIDEO


def of_kind(kind):
    return lambda track, publication, participant: track.kind == kind


async def test_two_people_hear_and_see_each_other(people):
    ada, bob = await people("ada"), await people("bob")
    await ada.event("participant_connected", lambda p: p.identity == "bob")
    assert [p.identity for p in bob.room.remote_participants.values()] == ["ada"]
    sources = [Tone(440), Colour(80), Tone(880), Colour(180)]
    for source, client in zip(sources, (ada, ada, bob, bob)):
        await source.publish(client)
    audio_of_ada, _, who = await bob.event("track_subscribed", of_kind(AUDIO))
    assert who.identity == "ada"
    video_of_ada, _, _ = await bob.event("track_subscribed", of_kind(VIDEO))
    audio_of_bob, _, _ = await ada.event("track_subscribed", of_kind(AUDIO))
    video_of_bob, _, _ = await ada.event("track_subscribed", of_kind(VIDEO))
    got = await asyncio.gather(
        hears(audio_of_ada, 440), sees(video_of_ada, 80), hears(audio_of_bob, 880), sees(video_of_bob, 180)
    )
    assert got == [True] * 4
    await ada.event("local_track_subscribed")


async def test_who_comes_late_gets_what_is_there(people):
    ada = await people("ada")
    tone, colour = Tone(600), Colour(120)
    await tone.publish(ada)
    await colour.publish(ada)
    bob = await people("bob")
    audio, _, _ = await bob.event("track_subscribed", of_kind(AUDIO))
    video, _, _ = await bob.event("track_subscribed", of_kind(VIDEO))
    assert await asyncio.gather(hears(audio, 600), sees(video, 120)) == [True, True]


async def test_mute_is_seen_and_unpublished_tracks_go(people):
    ada, bob = await people("ada"), await people("bob")
    tone = Tone(440)
    publication = await tone.publish(ada)
    await bob.event("track_subscribed")
    tone.track.mute()
    who, muted = await bob.event("track_muted")
    assert (who.identity, muted.muted) == ("ada", True)
    tone.track.unmute()
    await bob.event("track_unmuted")
    await ada.me.unpublish_track(publication.sid)
    await bob.event("track_unpublished")
    tone.stop()
    # The section of the first is free for a second.
    again = Tone(700)
    await again.publish(ada)
    audio, _, _ = await bob.event("track_subscribed", lambda t, p, _: p.sid != publication.sid)
    assert await hears(audio, 700)


@pytest.mark.parametrize("reliable", [True, False])
async def test_data_reaches_everyone_or_only_the_addressed(people, reliable):
    ada, bob, eve = await people("ada"), await people("bob"), await people("eve")
    got = lambda client, text: [p for (p,) in client.all("data_received") if p.data == text]
    for attempt in range(50):
        # Unreliable data may be lost, also while the channel opens.
        await ada.me.publish_data(b"for all", reliable=reliable, topic="t")
        if reliable or (got(bob, b"for all") and got(eve, b"for all")):
            break
        await asyncio.sleep(0.1)
    for client in (bob, eve):
        packet = (await client.until(lambda: got(client, b"for all"), "data"))[0]
        assert (packet.participant.identity, packet.topic) == ("ada", "t")
    await ada.me.publish_data(b"for bob", reliable=True, destination_identities=["bob"])
    await ada.me.publish_data(b"last", reliable=True)
    await eve.until(lambda: got(eve, b"last"), "the last packet")
    await bob.until(lambda: got(bob, b"last"), "the last packet")
    assert len(got(bob, b"for bob")) == 1 and not got(eve, b"for bob")
    if reliable:
        assert len(got(bob, b"for all")) == 1
    assert not ada.all("data_received")


async def test_text_streams_pass(people):
    ada, bob = await people("ada"), await people("bob")
    texts = asyncio.Queue()

    def on_text(reader, identity):
        async def read():
            texts.put_nowait((identity, reader.info.attributes.get("k"), await reader.read_all()))

        on_text.task = asyncio.create_task(read())

    bob.room.register_text_stream_handler("notes", on_text)
    long = "Grüße, " * 8_000
    await ada.me.send_text(long, topic="notes", attributes={"k": "v"})
    assert await asyncio.wait_for(texts.get(), PATIENCE_S) == ("ada", "v", long)


async def test_calls_go_both_ways(people):
    ada, bob = await people("ada"), await people("bob")
    for client in (ada, bob):

        async def answer(call: rtc.RpcInvocationData, client=client):
            if call.payload == "fail":
                raise rtc.RpcError(1501, "as asked")
            return f"{client.identity} to {call.caller_identity}: {call.payload}"

        client.me.register_rpc_method("echo", answer)
    call = lambda a, b, payload: a.me.perform_rpc(destination_identity=b, method="echo", payload=payload)
    assert await call(ada, "bob", "hi") == "bob to ada: hi"
    assert await call(bob, "ada", "x" * 10_000) == "ada to bob: " + "x" * 10_000
    with pytest.raises(rtc.RpcError) as error:
        await call(ada, "bob", "fail")
    assert (error.value.code, error.value.message) == (1501, "as asked")
    with pytest.raises(rtc.RpcError) as error:
        await ada.me.perform_rpc(destination_identity="bob", method="nothing", payload="")
    assert error.value.code == 1400


async def test_attributes_are_told_to_all_but_the_servers_own_are_not_changed(people):
    ada, bob = await people("ada", attributes={"viva.role": "interviewer"}), await people("bob")
    assert bob.room.remote_participants["ada"].attributes["viva.role"] == "interviewer"
    await ada.me.set_attributes({"hand": "up"})
    changed, who = await bob.event("participant_attributes_changed")
    assert (changed, who.identity) == ({"hand": "up"}, "ada")
    await ada.me.set_name("Ada L.")
    await bob.event("participant_name_changed", lambda who, old, new: new == "Ada L.")
    try:
        await ada.me.set_attributes({"viva.role": "interviewee"})
    except Exception:
        pass  # whether the SDK tells of the refusal is its own affair
    await ada.me.set_attributes({"hand": "down"})
    await bob.event("participant_attributes_changed", lambda changed, who: changed.get("hand") == "down")
    assert bob.room.remote_participants["ada"].attributes["viva.role"] == "interviewer"


async def test_who_speaks_is_told(people):
    ada, bob = await people("ada"), await people("bob")
    tone = Tone(440)
    await tone.publish(ada)
    await bob.event("active_speakers_changed", lambda speakers: [s.identity for s in speakers] == ["ada"])
    since = len(bob.events)
    tone.track.mute()
    await bob.event("active_speakers_changed", lambda speakers: speakers == [], since)


async def test_a_dropped_socket_is_resumed_without_a_gap_in_sound(people):
    ada, bob = await people("ada"), await people("bob")
    tone = Tone(440)
    await tone.publish(ada)
    audio, _, _ = await bob.event("track_subscribed")
    assert await hears(audio, 440)
    await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT)
    await ada.event("reconnected")
    assert not bob.all("participant_disconnected"), "nobody saw her go"
    assert await hears(audio, 440)
    await ada.me.publish_data(b"still here", reliable=True)
    await bob.event("data_received", lambda packet: packet.data == b"still here")
    await bob.me.publish_data(b"me too", reliable=True)
    await ada.event("data_received", lambda packet: packet.data == b"me too")


async def test_a_full_reconnect_brings_everything_back(people):
    ada, bob = await people("ada"), await people("bob")
    tone, other = Tone(440), Tone(880)
    await tone.publish(ada)
    await other.publish(bob)
    await bob.event("track_subscribed")
    await ada.event("track_subscribed")
    since_ada, since_bob = len(ada.events), len(bob.events)
    await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
    await ada.event("reconnected", since=since_ada)
    audio, _, _ = await bob.event("track_subscribed", of_kind(AUDIO), since_bob)
    assert await hears(audio, 440)
    audio = await ada.until(
        lambda: next((p.track for p in ada.room.remote_participants["bob"].track_publications.values() if p.track), None),
        "bob's track",
    )
    assert await hears(audio, 880)


async def test_a_vanished_server_side_is_noticed_and_rejoined(people):
    ada, bob = await people("ada"), await people("bob")
    since = len(ada.events)
    await ada.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_NODE_FAILURE)
    await ada.event("reconnected", since=since)
    await ada.me.publish_data(b"back", reliable=True)
    await bob.event("data_received", lambda packet: packet.data == b"back")


async def test_a_wrong_token_is_refused_with_the_reason(people):
    with pytest.raises(rtc.ConnectError) as error:
        await people("ada", secret="not the secret")
    assert "signature" in error.value.message
    with pytest.raises(rtc.ConnectError) as error:
        await people("ada", room_join=False)
    assert "roomJoin" in error.value.message


async def test_the_second_of_one_identity_ends_the_first(people):
    first = await people("ada")
    await people("ada")
    (reason,) = await first.event("disconnected")
    assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY


async def test_a_token_that_may_not_publish_or_listen_does_not(people):
    ada = await people("ada")
    tone = Tone(440)
    await tone.publish(ada)
    mute = await people("bob", can_publish=False, can_subscribe=False)
    with pytest.raises(Exception):
        await asyncio.wait_for(Tone(500).publish(mute), PATIENCE_S)
    await asyncio.sleep(1)
    assert not mute.all("track_subscribed")


async def test_leaving_is_seen(people):
    ada, bob = await people("ada"), await people("bob")
    await ada.room.disconnect()
    (who,) = await bob.event("participant_disconnected")
    assert who.identity == "ada"


@pytest.mark.skipif("VIVA_URL" in os.environ, reason="the server is not ours to restart")
async def test_a_restarted_server_is_joined_again(own_server):
    ada = await Client(own_server.url, "restart").connect("ada")
    bob = await Client(own_server.url, "restart").connect("bob")
    await Tone(440).publish(ada)
    await bob.event("track_subscribed")
    since_ada, since_bob = len(ada.events), len(bob.events)
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    await ada.event("reconnected", since=since_ada)
    await bob.event("reconnected", since=since_bob)
    audio, _, _ = await bob.event("track_subscribed", of_kind(AUDIO), since_bob)
    assert await hears(audio, 440)
    for client in (ada, bob):
        for source in client.sources:
            source.stop()
        await client.room.disconnect()
