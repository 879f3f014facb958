"""Clients that may use nothing but a relay: by coturn, which shares a secret with the server."""

import contextlib
import socket
import tempfile
import time
import uuid

import pytest
from livekit import rtc

from conftest import Client, Server, free_port
from media import Tone, hears
from relays import SECRET, Coturn

RELAYS_ONLY = rtc.RoomOptions(
    rtc_config=rtc.RtcConfiguration(ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY)
)


@contextlib.contextmanager
def own_relay(settings):
    """A server whose own relay listens where `settings` say, and nowhere else."""
    closed = {f"VIVA_TURN_SERVER__{way}_LISTEN": "null" for way in ("UDP", "TCP")}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, {"VIVA_TURN_SERVER__ENABLED": "true"} | closed | settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


async def hear_each_other(url, label, patience=None):
    """Ada, who gets out by relays only, speaks to Bob. Returns how long Ada took to connect."""
    room_name = f"test-{uuid.uuid4().hex[:8]}"
    ada, bob = Client(url, room_name, RELAYS_ONLY), Client(url, room_name)
    tone = Tone(440)
    try:
        await bob.connect("bob")
        began = time.monotonic()
        await ada.connect("ada")
        took = time.monotonic() - began
        await tone.publish(ada)
        track, _, _ = await bob.event("track_subscribed")
        assert await hears(track, 440)
    finally:
        tone.stop()
        await ada.room.disconnect()
        await bob.room.disconnect()
    print(f"\n{label}: connected after {took:.2f} s")
    assert took < (patience or 15), "a busy machine may take longer than 3 s, but not this long"
    return took


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_client_reaches_its_room_through_coturn(transport):
    with tempfile.TemporaryDirectory() as folder, Coturn(folder).running() as coturn:
        server = Server(folder, {
            "VIVA_TURN_SERVER__EXTERNAL__URLS": coturn.url(transport),
            "VIVA_TURN_SERVER__EXTERNAL__SECRET": SECRET,
        })
        server.start()
        try:
            await hear_each_other(server.url, f"coturn by {transport}")
        finally:
            server.stop()
        assert coturn.said("ALLOCATE processed, success")
        assert coturn.said("CREATE_PERMISSION processed, success")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_client_reaches_its_room_through_the_servers_own_relay(transport):
    port = free_port(socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
    with own_relay({f"VIVA_TURN_SERVER__{transport.upper()}_LISTEN": f"127.0.0.1:{port}"}) as server:
        await hear_each_other(server.url, f"the server's own relay by {transport}")
        assert server.metric('viva_turn_server_bytes_total{direction="up"}') > 10_000
