#!/usr/bin/env python3
"""A small OpenAI-compatible transcription endpoint for tests: `POST /v1/audio/transcriptions`, answered by `ear.py`.

It hears the WAV that it is sent and knows just the sentences of the story. Silence, noise and the interviewer's own
voice give an empty text. Every request is kept: `GET /log` tells them as JSON, `--keep DIR` writes the WAVs.

Prints `listening on http://127.0.0.1:PORT` once it is ready. Needs only Python and what `ear.py` needs.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
import wave
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ear  # noqa: E402

# 30 s of 48 kHz stereo is 6 MB; nothing in a test is longer.
MAX_BODY_BYTES = 32 << 20


def samples_of(wav_bytes):
    """16 kHz mono samples of a WAV file; sox converts what is not so already."""
    with wave.open(io.BytesIO(wav_bytes)) as wav:
        if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (ear.RATE_HZ, 1, 2):
            return wav.readframes(wav.getnframes())
    command = ["sox", "-t", "wav", "-", "-t", "raw", "-r", str(ear.RATE_HZ), "-c", "1", "-b", "16", "-e", "signed", "-"]
    return subprocess.run(command, check=True, input=wav_bytes, stdout=subprocess.PIPE).stdout


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message, code):
        self.close_connection = True
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "code": code}})

    def do_GET(self):
        if self.path == "/log":
            with self.server.lock:
                return self.reply(200, list(self.server.log))
        return self.reply(404, {"error": {"message": "no such page", "type": "invalid_request_error"}})

    def do_POST(self):
        if self.path != "/v1/audio/transcriptions":
            return self.refuse(404, "no such endpoint", None)
        began = time.time()
        # Read in any case: a client that is refused while it still sends sees a broken pipe instead of the answer.
        body = self.body()
        if body is None:
            return self.refuse(413, "the file is too large", None)
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.refuse(401, "Incorrect API key provided", "invalid_api_key")
        head = f"Content-Type: {self.headers.get('Content-Type', '')}\r\n\r\n".encode()
        form = {p.get_param("name", header="content-disposition"): p for p in message_from_bytes(head + body).walk()}
        if "file" not in form or "model" not in form:
            return self.refuse(400, "the fields `file` and `model` are needed", None)
        wav = form["file"].get_payload(decode=True)
        try:
            pcm = samples_of(wav)
        except (wave.Error, EOFError, subprocess.CalledProcessError) as error:
            return self.refuse(400, f"not a WAV file: {error}", None)
        time.sleep(self.server.delay)
        with self.server.lock:
            heard = self.server.ear.hear(pcm)
            number = len(self.server.log)
            entry = {"number": number, "at": began, "seconds": len(pcm) / 2 / ear.RATE_HZ, **heard}
            entry["took"] = round(time.time() - began, 3)
            self.server.log.append(entry)
        if self.server.keep:
            with open(os.path.join(self.server.keep, f"{number:03}.wav"), "wb") as file:
                file.write(wav)
        want = form["response_format"].get_payload() if "response_format" in form else "json"
        value = {"text": heard["text"]}
        if want == "verbose_json":
            words = heard["words"] if heard["text"] else []
            value |= {"task": "transcribe", "language": "english", "duration": entry["seconds"], "words": words}
        return self.reply(200, value)

    def body(self):
        """The request's body, sent with a length or in chunks; `None` where it is too large."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            return self.rfile.read(length) if length <= MAX_BODY_BYTES else None
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
            if len(out) > MAX_BODY_BYTES:
                return None
        self.rfile.readline()
        return out

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--sentences", required=True, help="JSON file with a list of sentences")
    parser.add_argument("--prefixes", action="store_true", help="a sentence may break off after any word")
    parser.add_argument("--key", default="", help="refuse requests without this API key")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds to wait before every answer")
    parser.add_argument("--keep", default="", help="folder for the WAVs that come")
    arguments = parser.parse_args()
    with open(arguments.sentences, encoding="utf-8") as file:
        sentences = json.load(file)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.daemon_threads = True
    server.ear, server.lock, server.log = ear.Ear(sentences, arguments.prefixes), threading.Lock(), []
    server.key, server.delay, server.keep = arguments.key, arguments.delay, arguments.keep
    if server.keep:
        os.makedirs(server.keep, exist_ok=True)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
