"""Players that nobody here wrote."""

import asyncio
import json
import os

from conftest import PATIENCE_S, ROOT, Client, token
from media import Colour, Tone


async def test_gstreamer_plays_what_a_person_publishes(server, tmp_path):
    """Debian 12's GStreamer makes RSA certificates for DTLS, which are not taken; a preloaded library makes them ECDSA."""
    person = await Client(server, "stage").connect("person")
    await Tone(440).publish(person)
    await Colour(180).publish(person)
    shim = tmp_path / "shim.so"
    build = await asyncio.create_subprocess_exec(
        "cc", "-shared", "-fPIC", "-o", shim, ROOT / "tests/tools/whip-client-shim.c"
    )
    assert await build.wait() == 0
    player = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", ROOT / "tests/interop/whep_player.py",
        f"{server.replace('ws', 'http', 1)}/whep/v1", token("wall", "stage", can_publish=False),
        env=os.environ | {"LD_PRELOAD": str(shim)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await person.event("participant_connected", lambda p: p.identity == "wall")
        out, errors = await asyncio.wait_for(player.communicate(), 2 * PATIENCE_S)
        assert player.returncode == 0, errors.decode()[-2000:]
        played = json.loads(out.decode().splitlines()[-1])
        assert abs(played["hertz"] - 440) < 15, played
        assert played["width"] == 320 and abs(played["luma"] - 180) < 20, played
        await person.event("participant_disconnected", lambda p: p.identity == "wall")
    finally:
        if player.returncode is None:
            player.kill()
        for source in person.sources:
            source.stop()
        await person.room.disconnect()
