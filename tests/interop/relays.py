"""coturn, the relay that others wrote, on free ports; started and stopped by the test that needs it."""

import contextlib
import pathlib
import shutil
import socket
import subprocess
import time

import pytest
from conftest import PATIENCE_S, free_port

SECRET = "a secret that relay and server share"


class Coturn:
    """Debian's package, with credentials by shared secret. `certificate` is (certificate, key): TLS as well."""

    def __init__(self, folder, address="127.0.0.1", certificate=None, prefix=()):
        self.address, self.log = address, pathlib.Path(folder) / "coturn.log"
        self.port, self.tls_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        low = 20_000 + self.port % 20_000
        self.command = [
            *prefix, "turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=test",
            f"--listening-ip={address}", f"--relay-ip={address}", f"--listening-port={self.port}",
            f"--tls-listening-port={self.tls_port}", f"--min-port={low}", f"--max-port={low + 500}",
            "--allow-loopback-peers", "--no-cli", "--no-dtls", "--log-file=stdout", "--simple-log", "--verbose",
            f"--pidfile={folder}/coturn.pid", f"--userdb={folder}/coturn.db",
        ]
        if certificate:
            self.command += [f"--cert={certificate[0]}", f"--pkey={certificate[1]}"]
        else:
            self.command += ["--no-tls"]

    def url(self, transport):
        if transport == "tls":
            return f"turns:{self.address}:{self.tls_port}?transport=tcp"
        return f"turn:{self.address}:{self.port}?transport={transport}"

    def said(self, words):
        return words in self.log.read_text(errors="replace")

    @contextlib.contextmanager
    def running(self):
        if not shutil.which("turnserver"):
            pytest.fail("coturn is not installed: scripts/setup.sh --test")
        with self.log.open("w") as out:
            process = subprocess.Popen(self.command, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not self.said(f"TCP listener opened on : {self.address}:{self.port}"):
                assert process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.05)
            yield self
        finally:
            process.terminate()
            process.wait(10)
