#!/usr/bin/python3
"""A WHEP player made of GStreamer: plays until it has heard and seen enough, then prints what as one JSON object.

  whep_player.py URL TOKEN

Runs by the system's Python, which has GStreamer's bindings.
"""

import json
import sys
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

RECEIVE = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
CAPS = {
    "audio": "application/x-rtp,media=audio,encoding-name=OPUS,clock-rate=48000,encoding-params=(string)2,payload=111",
    "video": "application/x-rtp,media=video,encoding-name=VP8,clock-rate=90000,payload=96",
}
PLAY = {
    "audio": "rtpopusdepay ! opusdec ! audioconvert ! audio/x-raw,format=S16LE,channels=1,rate=48000",
    "video": "rtpvp8depay ! vp8dec ! videoconvert ! video/x-raw,format=GRAY8",
}
ENOUGH_SAMPLES, ENOUGH_FRAMES = 48_000, 15


class Player:
    def __init__(self, url, token):
        self.url, self.token = url, token
        self.session = None
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.Pipeline.new()
        self.bin = Gst.ElementFactory.make("webrtcbin")
        self.bin.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.bin)
        self.heard = {"samples": 0, "crossings": 0}
        self.seen = {"frames": 0}

    def run(self):
        self.bin.connect("pad-added", self.on_pad)
        self.bin.connect("notify::ice-gathering-state", self.on_gathering)
        for kind in CAPS:
            self.bin.emit("add-transceiver", RECEIVE, Gst.Caps.from_string(CAPS[kind]))
        self.pipeline.set_state(Gst.State.PLAYING)
        self.bin.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        self.request("DELETE", self.session)
        hertz = self.heard["crossings"] / 2 / (self.heard["samples"] / 48_000)
        print(json.dumps({"hertz": round(hertz), **self.seen}), flush=True)

    def on_offer(self, promise):
        # The offer lives in the reply.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        self.bin.emit("set-local-description", offer, Gst.Promise.new())

    def on_gathering(self, *_):
        if self.bin.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.exchange)

    def exchange(self):
        offer = self.bin.get_property("local-description").sdp.as_text()
        answer, headers = self.request("POST", self.url, offer.encode(), "application/sdp")
        self.session = urllib.parse.urljoin(self.url, headers["location"])
        _, sdp = GstSdp.SDPMessage.new_from_text(answer.decode())
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.bin.emit("set-remote-description", answer, Gst.Promise.new())

    def request(self, method, url, body=None, kind=None):
        headers = {"authorization": f"Bearer {self.token}"} | ({"content-type": kind} if kind else {})
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30) as answer:
            return answer.read(), answer.headers

    def on_pad(self, _, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        chain = Gst.parse_bin_from_description(f"{PLAY[kind]} ! fakesink name=sink signal-handoffs=true sync=false", True)
        chain.get_by_name("sink").connect("handoff", self.on_audio if kind == "audio" else self.on_video)
        self.pipeline.add(chain)
        chain.sync_state_with_parent()
        pad.link(chain.get_static_pad("sink"))

    def on_audio(self, _, buffer, __):
        samples = memoryview(buffer.extract_dup(0, buffer.get_size())).cast("h")
        # Silence until the sender is there, and clicks, are not counted.
        if max(map(abs, samples)) < 1000:
            return
        self.heard["samples"] += len(samples)
        self.heard["crossings"] += sum((a < 0) != (b < 0) for a, b in zip(samples, samples[1:]))
        self.look()

    def on_video(self, _, buffer, pad):
        picture = buffer.extract_dup(0, buffer.get_size())
        size = pad.get_current_caps().get_structure(0)
        self.seen = {
            "frames": self.seen["frames"] + 1,
            "width": size.get_int("width")[1],
            "luma": round(sum(picture[::997]) / len(picture[::997])),
        }
        self.look()

    def look(self):
        if self.heard["samples"] >= ENOUGH_SAMPLES and self.seen["frames"] >= ENOUGH_FRAMES:
            GLib.idle_add(self.loop.quit)


if __name__ == "__main__":
    Gst.init(None)
    Player(*sys.argv[1:]).run()
