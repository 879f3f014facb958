"""`livekit-api`, unmodified: what services do to rooms, seen by the people who are in them."""

import asyncio
import json
import urllib.error
import urllib.request

import pytest
from livekit import api, rtc

from conftest import KEY, PATIENCE_S, SECRET
from media import Colour, Tone


@pytest.fixture
async def service(server):
    async with api.LiveKitAPI(server.replace("ws", "http", 1), KEY, SECRET) as made:
        yield made


def twirp_code(error):
    return error.value.code


async def packets(client):
    """RTP packets that a client has received."""
    stats = await client.room.get_rtc_stats()
    every = [*stats.publisher_stats, *stats.subscriber_stats]
    return sum(s.inbound_rtp.received.packets_received for s in every if s.HasField("inbound_rtp"))


async def media(client, flows):
    """Waits until media flows to a client, or does not. The SDK tells nobody that the server took a track from it."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        before = await packets(client)
        await asyncio.sleep(0.5)
        if (await packets(client) - before > 5) == flows:
            return
        assert asyncio.get_running_loop().time() < deadline, f"media {'does not flow' if flows else 'flows'}"


async def test_rooms_are_made_listed_changed_and_deleted(service, people):
    name = people.room_name
    made = await service.room.create_room(api.CreateRoomRequest(name=name, empty_timeout=7, metadata="first"))
    assert (made.name, made.empty_timeout, made.metadata) == (name, 7, "first") and made.sid.startswith("RM_")
    ada = await people("ada")
    assert ada.room.metadata == "first"
    await service.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=name, metadata="second"))
    await ada.until(lambda: ada.room.metadata == "second", "the new metadata")
    listed = await service.room.list_rooms(api.ListRoomsRequest(names=[name]))
    assert [(r.name, r.num_participants, r.metadata) for r in listed.rooms] == [(name, 1, "second")]
    everything = await service.room.list_rooms(api.ListRoomsRequest())
    assert name in [r.name for r in everything.rooms]
    await service.room.delete_room(api.DeleteRoomRequest(room=name))
    (reason,) = await ada.event("disconnected")
    assert reason == rtc.DisconnectReason.ROOM_DELETED
    with pytest.raises(api.TwirpError) as error:
        await service.room.delete_room(api.DeleteRoomRequest(room=name))
    assert twirp_code(error) == "not_found"


async def test_a_full_room_takes_nobody_more(service, people):
    await service.room.create_room(api.CreateRoomRequest(name=people.room_name, max_participants=1))
    await people("ada")
    with pytest.raises(rtc.ConnectError):
        await people("bob")


async def test_people_are_listed_and_one_is_removed(service, people):
    ada, bob = await people("ada"), await people("bob")
    await ada.event("participant_active", lambda p: p.identity == "bob")
    request = api.ListParticipantsRequest(room=people.room_name)
    listed = await service.room.list_participants(request)
    assert sorted(p.identity for p in listed.participants) == ["ada", "bob"]
    identity = api.RoomParticipantIdentity(room=people.room_name, identity="bob")
    found = await service.room.get_participant(identity)
    assert (found.identity, found.name, found.state) == ("bob", "bob's name", api.ParticipantInfo.State.ACTIVE)
    await service.room.remove_participant(identity)
    (reason,) = await bob.event("disconnected")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED
    await ada.event("participant_disconnected", lambda p: p.identity == "bob")
    with pytest.raises(api.TwirpError) as error:
        await service.room.get_participant(identity)
    assert twirp_code(error) == "not_found"


async def test_a_microphone_is_muted_from_outside_and_stays_its_owners_to_open(service, people):
    ada, bob = await people("ada"), await people("bob")
    tone = Tone(440)
    publication = await tone.publish(ada)
    await bob.event("track_subscribed")

    def mute(muted):
        return service.room.mute_published_track(
            api.MuteRoomTrackRequest(
                room=people.room_name, identity="ada", track_sid=publication.sid, muted=muted
            )
        )

    assert (await mute(True)).track.muted
    who, track = await bob.event("track_muted")
    assert (who.identity, track.muted) == ("ada", True)
    await ada.event("track_muted", lambda p, _: p.identity == "ada")
    with pytest.raises(api.TwirpError) as error:
        await mute(False)
    assert twirp_code(error) == "failed_precondition"
    tone.track.unmute()
    await bob.event("track_unmuted")


async def test_permissions_change_while_people_talk(service, people):
    ada, bob = await people("ada"), await people("bob")
    tone = Tone(440)
    await tone.publish(ada)
    await bob.event("track_subscribed")

    def permit(identity, **permission):
        return service.room.update_participant(
            api.UpdateParticipantRequest(
                room=people.room_name, identity=identity, permission=api.ParticipantPermission(**permission)
            )
        )

    info = await permit("ada", can_subscribe=True, can_publish=False, can_publish_data=True)
    assert not info.permission.can_publish and not info.tracks
    await bob.event("track_unpublished")
    await permit("ada", can_subscribe=True, can_publish=True, can_publish_data=True)
    before = len(bob.events)
    colour = Colour(120)
    await colour.publish(ada)
    await bob.event("track_subscribed", since=before)
    await media(bob, True)
    await permit("bob", can_subscribe=False, can_publish=True, can_publish_data=True)
    await media(bob, False)
    await permit("bob", can_subscribe=True, can_publish=True, can_publish_data=True)
    await media(bob, True)


async def test_names_metadata_and_attributes_are_changed_from_outside(service, people):
    ada, bob = await people("ada"), await people("bob")
    await service.room.update_participant(
        api.UpdateParticipantRequest(
            room=people.room_name, identity="ada", name="Countess", metadata="m", attributes={"viva.role": "ai", "a": "b"}
        )
    )
    seen = bob.room.remote_participants["ada"]
    await bob.until(lambda: (seen.name, seen.metadata, seen.attributes.get("a")) == ("Countess", "m", "b"), "the change")
    # Services may set what people may not set of themselves.
    assert seen.attributes["viva.role"] == "ai"
    await ada.until(lambda: ada.me.name == "Countess", "her own new name")


async def test_subscriptions_are_changed_from_outside(service, people):
    ada, bob = await people("ada"), await people("bob")
    publication = await Tone(440).publish(ada)
    await bob.event("track_subscribed")

    def subscribe(wanted):
        return service.room.update_subscriptions(
            api.UpdateSubscriptionsRequest(
                room=people.room_name, identity="bob", track_sids=[publication.sid], subscribe=wanted
            )
        )

    await media(bob, True)
    await subscribe(False)
    await media(bob, False)
    await subscribe(True)
    await media(bob, True)


async def test_data_of_a_service_reaches_everyone_or_only_the_addressed(service, people):
    ada, bob = await people("ada"), await people("bob")
    room = people.room_name
    everyone = api.SendDataRequest(room=room, data=b"to all", kind=api.DataPacket.Kind.RELIABLE, topic="news")
    await service.room.send_data(everyone)
    one = api.SendDataRequest(
        room=room, data=b"to bob", kind=api.DataPacket.Kind.RELIABLE, destination_identities=["bob"]
    )
    await service.room.send_data(one)
    (packet,) = await bob.event("data_received", lambda p: p.data == b"to all")
    assert packet.topic == "news" and packet.participant is None
    await bob.event("data_received", lambda p: p.data == b"to bob")
    await ada.event("data_received", lambda p: p.data == b"to all")
    await asyncio.sleep(0.3)
    assert all(p.data != b"to bob" for (p,) in ada.all("data_received"))


def post(server, method, body, grants, kind="application/json"):
    """A call as services make it that have no SDK."""
    made = api.AccessToken(KEY, SECRET).with_identity("service").with_grants(api.VideoGrants(**grants)).to_jwt()
    url = f"{server.replace('ws', 'http', 1)}/twirp/livekit.RoomService/{method}"
    request = urllib.request.Request(url, body, {"Content-Type": kind, "Authorization": f"Bearer {made}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_a_service_calls_a_participants_method(server, people):
    ada = await people("ada")

    async def shout(data: rtc.RpcInvocationData):
        if data.payload == "quietly":
            raise rtc.RpcError(4001, "cannot", "")
        return data.payload.upper()

    ada.me.register_rpc_method("shout", shout)
    grants = {"room_admin": True, "room": people.room_name}

    def call(payload, to="ada", method="shout"):
        body = {
            "room": people.room_name, "destinationIdentity": to, "method": method, "payload": payload,
            "responseTimeoutMs": 8000,
        }  # fmt: skip
        return asyncio.to_thread(post, server, "PerformRpc", json.dumps(body).encode(), grants)

    assert await call("hello") == (200, {"payload": "HELLO"})
    status, problem = await call("quietly")
    assert (status, problem["meta"]["rpc_code"], problem["msg"]) == (412, "4001", "cannot")
    status, problem = await call("x", method="nothing")
    assert (status, problem["meta"]["rpc_code"]) == (412, "1400")
    assert (await call("x", to="nobody"))[0] == 404


@pytest.mark.parametrize(
    "method, body, grants, kind, status, code",
    [
        ("ListRooms", b"{}", {"room_join": True, "room": "x"}, "application/json", 403, "permission_denied"),
        ("CreateRoom", b'{"name":"x"}', {"room_list": True}, "application/json", 403, "permission_denied"),
        ("ListParticipants", b'{"room":"x"}', {"room_admin": True, "room": "y"}, "application/json", 403, "permission_denied"),
        ("ListParticipants", b'{"room":"x"}', {"room_admin": True, "room": "x"}, "application/json", 404, "not_found"),
        ("CreateRoom", b'{"name":""}', {"room_create": True}, "application/json", 400, "invalid_argument"),
        ("CreateRoom", b"{", {"room_create": True}, "application/json;charset=UTF-8", 400, "malformed"),
        ("CreateRoom", b"\xff\xff", {"room_create": True}, "application/protobuf", 400, "malformed"),
        ("CreateRoom", b"{}", {"room_create": True}, "text/plain", 404, "bad_route"),
        ("Nonsense", b"{}", {"room_create": True}, "application/json", 404, "bad_route"),
        ("ForwardParticipant", b'{"room":"x"}', {"room_admin": True, "room": "x"}, "application/json", 403, "permission_denied"),
        ("ForwardParticipant", b'{"room":"x","destinationRoom":"y"}', {"room_admin": True, "room": "x", "destination_room": "z"}, "application/json", 403, "permission_denied"),
        ("ForwardParticipant", b'{"room":"x","destinationRoom":"y"}', {"room_admin": True, "room": "x", "destination_room": "y"}, "application/json", 404, "not_found"),
        ("MoveParticipant", b'{"room":"x"}', {"room_admin": True, "room": "x"}, "application/json", 403, "permission_denied"),
        ("MoveParticipant", b'{"room":"x","destinationRoom":"y"}', {"room_admin": True, "room": "x", "destination_room": "z"}, "application/json", 403, "permission_denied"),
        ("MoveParticipant", b'{"room":"x","destinationRoom":"y"}', {"room_admin": True, "room": "x", "destination_room": "y"}, "application/json", 404, "not_found"),
        ("CreateRoom", b'{"name":"x","egress":{"room":{}}}', {"room_create": True}, "application/json", 501, "unimplemented"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_told_as_twirp_does(server, method, body, grants, kind, status, code):
    got, problem = await asyncio.to_thread(post, server, method, body, grants, kind)
    assert (got, problem["code"]) == (status, code) and problem["msg"]


async def test_a_call_without_a_token_is_refused(server):
    url = f"{server.replace('ws', 'http', 1)}/twirp/livekit.RoomService/ListRooms"
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        await asyncio.to_thread(urllib.request.urlopen, request)
    assert error.value.code == 401 and json.load(error.value)["code"] == "unauthenticated"
