"""Two people who meet, as a program of its own so that it can run in another network: ada hums, bob listens.

Arguments: the server's address and the room; `cut` where UDP will be cut off in the call. Prints what they saw, as
JSON; then, for a line that says that it was cut, after how long bob hears ada again.
"""

import asyncio
import json
import sys
import time

from livekit import rtc

from conftest import Client
from media import Tone, comes_back, hears

HERTZ = 440


async def timed(waits):
    began = time.monotonic()
    result = await waits
    return time.monotonic() - began, result


async def main(url, room, *cut):
    ada, bob = Client(url, room), Client(url, room)
    ada_s, _ = await timed(ada.connect("ada"))
    bob_s, _ = await timed(bob.connect("bob"))
    tone = Tone(HERTZ)
    await tone.publish(ada)
    began = time.monotonic()
    track, _, _ = await bob.event("track_subscribed", lambda track, *_: track.kind == rtc.TrackKind.KIND_AUDIO)
    heard = await hears(track, HERTZ, seconds=0.3)
    print(json.dumps({"ada_s": ada_s, "bob_s": bob_s, "heard": heard, "heard_s": time.monotonic() - began}), flush=True)
    if cut:
        await asyncio.to_thread(sys.stdin.readline)
        sids = [client.me.sid for client in (ada, bob)]
        back_s = await comes_back(track)
        stayed = sids == [client.me.sid for client in (ada, bob)]
        print(json.dumps({"back_s": back_s, "stayed": stayed}), flush=True)
    tone.stop()
    await asyncio.gather(ada.room.disconnect(), bob.room.disconnect())


asyncio.run(main(*sys.argv[1:]))
