#!/usr/bin/env python3
"""The Python SDK `livekit`, unmodified: joins, answers calls of the method `echo` by the payload turned round, calls the
same method of each person named, waits until each has called too, and prints both as one JSON object.

  calls.py --url ws://localhost:7880 --token T --to ada,grace
"""

import argparse
import asyncio
import json

from livekit import rtc

# A slow machine makes this test slow, not red.
PATIENCE_S = 60


async def main(arguments):
    room = rtc.Room()
    await room.connect(arguments.url, arguments.token)
    calls = []

    async def echo(data: rtc.RpcInvocationData):
        calls.append(data.caller_identity)
        return data.payload[::-1]

    room.local_participant.register_rpc_method("echo", echo)
    answers = {}
    async with asyncio.timeout(PATIENCE_S):
        for identity in arguments.to.split(","):
            while identity not in room.remote_participants:
                await asyncio.sleep(0.05)
            answers[identity] = await room.local_participant.perform_rpc(
                destination_identity=identity, method="echo", payload=f"for {identity}"
            )
        while set(calls) != set(answers):
            await asyncio.sleep(0.05)
    await room.disconnect()
    print(json.dumps({"answers": answers, "calls": sorted(set(calls))}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("url", "token", "to"):
        parser.add_argument(f"--{name}", required=True)
    asyncio.run(main(parser.parse_args()))
