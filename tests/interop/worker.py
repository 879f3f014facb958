#!/usr/bin/env python3
"""A worker of the package `livekit-agents`, unmodified, whose agent hums instead of speaking: its voice is a stub, and
everything else of the framework runs.

  worker.py --url ws://127.0.0.1:7880 --name hum [--type publisher] [--hertz 440] [--refuse]

Prints one line of JSON for each thing that happens to it.
"""

import argparse
import asyncio
import json
import logging

import numpy as np
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    Agent,
    AgentServer,
    AgentSession,
    JobExecutorType,
    JobRequest,
    WorkerType,
    tts,
)

RATE = 24_000
SECONDS = 20


def tell(event, **about):
    print(json.dumps({"event": event} | about), flush=True)


class Hum(tts.TTS):
    """Says everything as one long tone."""

    def __init__(self, hertz):
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1
        )
        self.hertz = hertz

    def synthesize(self, text, *, conn_options=DEFAULT_API_CONNECT_OPTIONS):
        return Humming(tts=self, input_text=text, conn_options=conn_options)


class Humming(tts.ChunkedStream):
    async def _run(self, output_emitter):
        output_emitter.initialize(
            request_id="hum", sample_rate=RATE, num_channels=1, mime_type="audio/pcm"
        )
        time = np.arange(RATE * SECONDS) / RATE
        samples = np.sin(2 * np.pi * self._tts.hertz * time) * 12_000
        output_emitter.push(samples.astype(np.int16).tobytes())
        output_emitter.flush()


def serve(arguments):
    server = AgentServer(
        # One process for all: starting others takes seconds.
        job_executor_type=JobExecutorType.THREAD, num_idle_processes=1, load_threshold=float("inf"),
        ws_url=arguments.url, api_key=arguments.key, api_secret=arguments.secret, host="127.0.0.1", port=0,
    )  # fmt: skip

    async def on_request(request: JobRequest):
        tell("request", name=arguments.name, room=request.room.name, metadata=request.job.metadata)
        if arguments.refuse:
            # Only this worker: the job is for another one.
            await request.reject(terminate=False)
        else:
            await request.accept(name="The hum", attributes={"hums": str(arguments.hertz)})

    kind = WorkerType.PUBLISHER if arguments.type == "publisher" else WorkerType.ROOM

    @server.rtc_session(agent_name=arguments.name, type=kind, on_request=on_request)
    async def entry(ctx):
        await ctx.connect()
        target = ctx.job.participant.identity if ctx.job.HasField("participant") else ""
        tell("job", id=ctx.job.id, room=ctx.room.name, metadata=ctx.job.metadata, target=target)
        gone = asyncio.Event()
        ctx.room.on("disconnected", lambda reason: gone.set())

        async def told_to_end(reason):
            tell("shutdown", id=ctx.job.id)

        ctx.add_shutdown_callback(told_to_end)
        session = AgentSession(tts=Hum(arguments.hertz))
        await session.start(agent=Agent(instructions=""), room=ctx.room)
        session.say("hm")
        await gone.wait()
        tell("disconnected", id=ctx.job.id)

    server.on("worker_registered", lambda worker, info: tell("registered", worker=worker, version=info.version))
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="devkey")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--name", default="")
    parser.add_argument("--type", choices=["room", "publisher"], default="room")
    parser.add_argument("--hertz", type=int, default=440)
    parser.add_argument("--refuse", action="store_true")
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(parser.parse_args()).run(devmode=True))
