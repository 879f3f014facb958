"""A running Viva and clients of it.

VIVA_URL names a server that runs already, started with its development key. Without it the binary of VIVA_BIN, or
`target/debug/viva`, is started on free ports for the whole run.
"""

import asyncio
import itertools
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

import pytest
from livekit import api, rtc

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY, SECRET = "devkey", "secret"
# A busy machine makes a test slow, not red.
PATIENCE_S = 30


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_up(url, process, log):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended:\n{log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the server did not come up:\n{log.read_text()[-4000:]}")


class Server:
    """Viva on free ports, with a folder of its own for what it keeps. Can be stopped and started again."""

    def __init__(self, folder, settings=None):
        self.binary = os.environ.get("VIVA_BIN") or str(ROOT / "target/debug/viva")
        self.port = free_port(socket.SOCK_STREAM)
        self.url = f"ws://127.0.0.1:{self.port}"
        self.log = pathlib.Path(folder) / "log"
        self.env = os.environ | {
            "VIVA_SERVER__HTTP_LISTEN": f"127.0.0.1:{self.port}",
            "VIVA_RTC__WORKERS": "1",
            "VIVA_RTC__TCP_PORT": "0",
            "VIVA_RTC__UDP_PORT_BASE": str(free_port(socket.SOCK_DGRAM)),
            "VIVA_STORE__URL": f"sqlite://{folder}/viva.db",
        } | (settings or {})
        self.process = None

    def start(self):
        with self.log.open("a") as out:
            command = [self.binary, "serve", "--dev"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=out, stderr=out)
        wait_until_up(f"http://127.0.0.1:{self.port}/", self.process, self.log)

    def metric(self, sample):
        """The value of one sample of /metrics; 0 where it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(sample + " ")), 0.0)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def own_server():
    """A server that the test may take down."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def server():
    """The base address of the server that all tests share, ws://…"""
    if url := os.environ.get("VIVA_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        server.start()
        yield server.url
        server.stop()


def token(identity, room, secret=SECRET, attributes=None, room_config=None, **grants):
    made = api.AccessToken(KEY, secret).with_identity(identity).with_name(f"{identity}'s name")
    if attributes:
        made = made.with_attributes(attributes)
    if room_config:
        made = made.with_room_config(room_config)
    grants = {"room_join": True, "room": room, "can_update_own_metadata": True} | grants
    return made.with_grants(api.VideoGrants(**grants)).to_jwt()


class Client:
    """A room of the SDK and everything that it said."""

    def __init__(self, url, room_name, options=None):
        self.url, self.room_name, self.options = url, room_name, options or rtc.RoomOptions()
        self.room = rtc.Room()
        self.sources = []
        self.events = []
        self.news = asyncio.Event()
        for name in (
            "participant_connected", "participant_disconnected", "participant_active", "track_published",
            "track_unpublished", "track_subscribed", "track_unsubscribed", "track_muted", "track_unmuted",
            "data_received", "active_speakers_changed", "reconnecting", "reconnected", "disconnected",
            "participant_attributes_changed", "participant_name_changed", "connection_quality_changed",
            "track_subscription_failed", "local_track_subscribed", "token_refreshed",
        ):
            self.room.on(name, self.recorder(name))

    def recorder(self, name):
        def record(*args):
            self.events.append((name, args))
            self.news.set()

        return record

    async def connect(self, identity, **kwargs):
        self.identity = identity
        await asyncio.wait_for(
            self.room.connect(self.url, token(identity, self.room_name, **kwargs), self.options), PATIENCE_S
        )
        return self

    @property
    def me(self):
        return self.room.local_participant

    def all(self, name):
        return [args for event, args in self.events if event == name]

    async def until(self, condition, what, patience=PATIENCE_S):
        """Waits until `condition()` is true of what came; returns what it returned."""
        deadline = time.monotonic() + patience
        while not (found := condition()):
            self.news.clear()
            left = deadline - time.monotonic()
            assert left > 0, f"{self.identity} never saw {what}; it saw {[name for name, _ in self.events]}"
            try:
                await asyncio.wait_for(self.news.wait(), min(left, 0.2))
            except asyncio.TimeoutError:
                pass
        return found

    async def event(self, name, matches=lambda *_: True, since=0):
        def found():
            return next(((args,) for e, args in self.events[since:] if e == name and matches(*args)), None)

        return (await self.until(found, name))[0]


# One peer connection is the default of this SDK; others, and its older versions, make two.
ONE, TWO = rtc.RoomOptions(), rtc.RoomOptions(single_peer_connection=False)
# How the people of a room connect, in turn.
CONNECTIONS = {"two-connections": [TWO], "one-connection": [ONE], "mixed": [ONE, TWO]}


@pytest.fixture(params=CONNECTIONS)
async def people(request, server):
    """`await people("ada")` lets somebody into this test's own room."""
    options = itertools.cycle(CONNECTIONS[request.param])
    room_name = f"test-{uuid.uuid4().hex[:8]}"
    clients = []

    async def enter(identity, **kwargs):
        client = Client(server, room_name, next(options))
        clients.append(client)
        return await client.connect(identity, **kwargs)

    enter.room_name = room_name
    yield enter
    for client in clients:
        for source in client.sources:
            source.stop()
        await client.room.disconnect()
