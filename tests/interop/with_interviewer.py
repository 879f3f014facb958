#!/usr/bin/env python3
"""The Python SDK `livekit`, unmodified, as the interviewee of an interview: speaks, hears the interviewer, reads the
transcriptions, calls the interviewer's methods; and as a second client, with which text and calls go both ways.

  with_interviewer.py --url ws://localhost:7880 --token T --guest-token T --speech ANSWER.wav --browser IDENTITY

Waits for a person who came by a browser, answers the first question, and prints one JSON object with all it saw.
"""

import argparse
import asyncio
import json
import sys
import time
import wave

from livekit import rtc

INTERVIEWER = "viva-interviewer"
TOPIC = "lk.transcription"
# A slow machine makes this test slow, not red.
PATIENCE_S = 60
RATE = 48_000
# Half a second. Each frame costs a round trip into the SDK, which on a busy machine takes longer than 10 ms: small
# frames would leave its queue of one second empty, and silence would go out between them.
FRAME = RATE // 2


class Client:
    """One participant and what reached it; of media only where it `listens`, since decoding costs."""

    def __init__(self, listens):
        self.room = rtc.Room()
        self.audio = {}
        self.video = {}
        self.transcriptions = []
        self.texts = []
        self.calls = []
        self.states = []
        self.tasks = set()
        if listens:
            self.room.on("track_subscribed", self.on_track)
        self.room.on("participant_attributes_changed", self.on_attributes)
        self.room.register_text_stream_handler(TOPIC, lambda reader, who: self.spawn(self.read(reader, who)))
        self.room.register_text_stream_handler("notes", lambda reader, who: self.spawn(self.note(reader, who)))

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def join(self, url, token, options):
        await self.room.connect(url, token, options)

        async def echo(data: rtc.RpcInvocationData):
            self.calls.append([data.caller_identity, data.payload])
            return data.payload[::-1]

        self.room.local_participant.register_rpc_method("echo", echo)

    def on_attributes(self, changed, participant):
        if participant.identity == INTERVIEWER and "lk.agent.state" in changed:
            self.states.append(changed["lk.agent.state"])

    def on_track(self, track, publication, participant):
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self.spawn(self.listen(track, participant.identity))
        else:
            self.spawn(self.watch(track, participant.identity))

    async def listen(self, track, who):
        """Counts 10 ms frames with sound in them."""
        self.audio.setdefault(who, {"frames": 0, "loud": 0})
        async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
            samples = event.frame.data
            level = max((abs(s) for s in samples[::8]), default=0)
            self.audio[who]["frames"] += 1
            self.audio[who]["loud"] += level > 600

    async def watch(self, track, who):
        """Counts frames; keeps the size and the mean brightness and colours of the last."""
        async for event in rtc.VideoStream(track, format=rtc.VideoBufferType.RGB24):
            frame = event.frame
            data = frame.data
            pixels = range(0, len(data) - 2, 3 * 997)
            colour = [round(sum(data[p + c] for p in pixels) / len(pixels)) for c in (0, 1, 2)]
            seen = self.video.setdefault(who, {"frames": 0})
            seen.update(frames=seen["frames"] + 1, width=frame.width, height=frame.height, colour=colour)

    async def read(self, reader, who):
        text = await reader.read_all()
        attributes = dict(reader.info.attributes or {})
        self.transcriptions.append({"from": who, "text": text, **attributes})

    async def note(self, reader, who):
        self.texts.append([who, await reader.read_all()])


async def until(what, probe):
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not probe():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S} s for {what}")
        await asyncio.sleep(0.05)


async def speak(source, path):
    """Plays a 48 kHz mono WAV at the pace of talk, then silence, as a microphone does. Tells how long that took: much
    longer than the sound is means that it went out with holes."""
    with wave.open(path) as wav:
        data = wav.readframes(wav.getnframes()) + bytes(2 * RATE * 2)
    started = time.monotonic()
    for at in range(0, len(data), FRAME * 2):
        piece = data[at : at + FRAME * 2]
        await source.capture_frame(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))
    await source.wait_for_playout()
    took = time.monotonic() - started
    return {"took_s": round(took, 2), "sound_s": round(len(data) / 2 / RATE, 2)}


async def main(arguments):
    me, guest = Client(listens=True), Client(listens=False)
    # One as the SDK does by default, the other as SDKs do that make two peer connections.
    await me.join(arguments.url, arguments.token, rtc.RoomOptions(single_peer_connection=False))
    await guest.join(arguments.url, arguments.guest_token, rtc.RoomOptions())
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    await me.room.local_participant.publish_track(track, options)

    await until("the interviewer", lambda: INTERVIEWER in me.room.remote_participants)
    interviewer = me.room.remote_participants[INTERVIEWER]
    consent = {}
    for purpose in ("ai_interviewer", "transcription"):
        consent[purpose] = await me.room.local_participant.perform_rpc(
            destination_identity=INTERVIEWER, method="viva.consent",
            payload=json.dumps({"purpose": purpose, "granted": True}),
        )  # fmt: skip
    refusals = {}
    for method, payload in (("viva.nonsense", "{}"), ("viva.consent", "no json")):
        try:
            await me.room.local_participant.perform_rpc(
                destination_identity=INTERVIEWER, method=method, payload=payload
            )
        except rtc.RpcError as error:
            refusals[method] = {"code": error.code, "message": error.message}

    await until("the interviewer's voice", lambda: me.audio.get(INTERVIEWER, {}).get("loud", 0) > 100)
    await until("the end of the question", lambda: interviewer.attributes.get("lk.agent.state") == "listening")
    await until("the browser's sound", lambda: me.audio.get(arguments.browser, {}).get("frames", 0) > 100)
    await until("the browser's picture", lambda: me.video.get(arguments.browser, {}).get("frames", 0) > 15)

    # Text and a call, both ways between two clients.
    own, other = me.room.local_participant, guest.room.local_participant
    await own.send_text("a note from the interviewee", topic="notes")
    await other.send_text("a note from the guest " + "x" * 40_000, topic="notes")
    await until("the notes", lambda: me.texts and guest.texts)
    answers = [
        await own.perform_rpc(destination_identity=other.identity, method="echo", payload="abc"),
        await other.perform_rpc(destination_identity=own.identity, method="echo", payload="xyz"),
    ]

    spoke = await speak(source, arguments.speech)
    try:
        await until(
            "the transcription of the answer",
            lambda: any(
                t["from"] == own.identity and t.get("lk.transcription_final") == "true" for t in me.transcriptions
            ),
        )
    except TimeoutError:
        print("statistics:", await me.room.get_rtc_stats(), file=sys.stderr)
        print("spoke:", spoke, "seen:", me.transcriptions, me.states, me.audio, file=sys.stderr)
        raise
    await until("the interviewer to go on", lambda: me.states.count("speaking") >= 1 and me.states[-1] == "listening")
    result = {
        "identity": own.identity,
        "interviewer": {
            "kind": interviewer.kind, "name": interviewer.name, "attributes": dict(interviewer.attributes),
        },
        "states": me.states, "audio": me.audio, "video": me.video, "transcriptions": me.transcriptions,
        "texts": [[who, text[:30], len(text)] for who, text in me.texts + guest.texts],
        "answers": answers, "consent": consent, "refusals": refusals, "spoke": spoke,
    }  # fmt: skip
    await guest.room.disconnect()
    await me.room.disconnect()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("url", "token", "guest-token", "speech", "browser"):
        parser.add_argument(f"--{name}", required=True)
    sys.exit(asyncio.run(main(parser.parse_args())))
