"""Sound and pictures that can be told apart again: tones and plain colours."""

import asyncio
import time

import numpy as np
from livekit import rtc

RATE = 48_000
# 100 ms: each frame costs a round trip into the SDK, which takes longer than 10 ms on a busy machine.
FRAME = RATE // 10
WIDTH, HEIGHT = 320, 240


class Tone:
    """A microphone that hums."""

    def __init__(self, hertz):
        self.source = rtc.AudioSource(RATE, 1)
        self.track = rtc.LocalAudioTrack.create_audio_track("mic", self.source)
        self.options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        self.hertz = hertz
        self.task = None

    async def publish(self, client):
        client.sources.append(self)
        publication = await client.me.publish_track(self.track, self.options)
        self.task = asyncio.create_task(self.hum())
        return publication

    async def hum(self):
        at = 0
        while True:
            time = (np.arange(FRAME) + at) / RATE
            samples = (np.sin(2 * np.pi * self.hertz * time) * 12_000).astype(np.int16)
            at += FRAME
            await self.source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, FRAME))

    def stop(self):
        if self.task:
            self.task.cancel()


class Colour:
    """A camera that looks at a wall."""

    def __init__(self, luma):
        self.source = rtc.VideoSource(WIDTH, HEIGHT)
        self.track = rtc.LocalVideoTrack.create_video_track("cam", self.source)
        self.options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False, video_codec=rtc.VideoCodec.VP8
        )
        self.luma = luma
        self.task = None

    async def publish(self, client):
        client.sources.append(self)
        publication = await client.me.publish_track(self.track, self.options)
        self.task = asyncio.create_task(self.look())
        return publication

    async def look(self):
        chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
        data = bytes([self.luma]) * (WIDTH * HEIGHT) + chroma
        while True:
            self.source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, data))
            await asyncio.sleep(1 / 15)

    def stop(self):
        if self.task:
            self.task.cancel()


async def hears(track, hertz, seconds=1.0, patience=30.0):
    """Whether the strongest frequency over some time is this one, before patience ends."""
    stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
    window = np.zeros(0, dtype=np.int16)
    try:
        async with asyncio.timeout(patience):
            async for event in stream:
                window = np.append(window, np.frombuffer(event.frame.data, dtype=np.int16))
                if len(window) < seconds * RATE:
                    continue
                if abs(strongest(window) - hertz) < 10 and np.abs(window).max() > 1_000:
                    return True
                window = window[len(window) // 2 :]
    except TimeoutError:
        return False
    finally:
        await stream.aclose()


async def comes_back(track, patience=45.0):
    """Seconds from now until a sound that stops, as it does soon, is there again; `None` where that does not happen."""
    stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
    began, quiet, loud = time.monotonic(), 0.0, 0.0
    try:
        async with asyncio.timeout(patience):
            async for event in stream:
                samples = np.frombuffer(event.frame.data, dtype=np.int16)
                seconds = len(samples) / RATE
                if np.abs(samples).max() > 1_000:
                    loud += seconds
                elif quiet < 0.5 or loud < 0.2:
                    quiet, loud = quiet + seconds, 0.0
                if quiet >= 0.5 and loud >= 0.2:
                    return time.monotonic() - began
    except TimeoutError:
        return None
    finally:
        await stream.aclose()


def strongest(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.fft.rfftfreq(len(samples), 1 / RATE)[spectrum.argmax()]


async def sees(track, luma, patience=30.0):
    """Whether a picture of this brightness comes before patience ends."""
    stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
    try:
        async with asyncio.timeout(patience):
            async for event in stream:
                plane = np.frombuffer(event.frame.get_plane(0), dtype=np.uint8)
                if abs(int(np.median(plane)) - luma) < 12:
                    return True
    except TimeoutError:
        return False
    finally:
        await stream.aclose()
