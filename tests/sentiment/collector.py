"""A receiver to be sent to: a server on 127.0.0.1 that notes each request and answers as its mode says."""

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """One request: its path, headers by lower-case name and body."""

    path: str
    headers: dict
    body: bytes

    @property
    def key(self):
        return self.headers.get("idempotency-key")

    @property
    def content(self):
        return json.loads(self.body)

    @property
    def transitions(self):
        return [(n["alert_id"], n["transition"]) for n in self.content["notifications"]]


class Collector:
    """mode: a status code, or "hang", "drip", "redirect", "closes early", "endless"; a list is used up one by one, the last stays."""

    def __init__(self, mode=200, *, retry_after=None, target=""):
        self.modes = mode if isinstance(mode, list) else [mode]
        self.retry_after, self.target = retry_after, target
        self.requests: list[Request] = []
        self._ending = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                collector.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                with contextlib.suppress(OSError):
                    collector._answer(self)

            do_GET = do_POST

            def log_message(self, *_words):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path="/hook"):
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self):
        self._ending.set()
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, handler):
        mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
        if mode == "hang":
            self._ending.wait(20)
        elif mode == "drip":
            self._drip(handler)
        elif mode == "closes early":
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif mode == "endless":
            handler.send_response(200)
            handler.end_headers()
            while not self._ending.is_set():
                handler.wfile.write(b"x" * 65536)
        elif mode == "redirect":
            handler.send_response(302)
            handler.send_header("Location", self.target)
            handler.end_headers()
        else:
            handler.send_response(mode)
            if self.retry_after is not None:
                value = self.retry_after if isinstance(self.retry_after, str) else format_datetime(self.retry_after, usegmt=True)
                handler.send_header("Retry-After", value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def _drip(self, handler):
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 500:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if self._ending.is_set():
                return
            time.sleep(0.05)


class MailServer:
    """The least of an SMTP server: takes every message and keeps it."""

    def __init__(self):
        self.messages: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(OSError), connection, connection.makefile("rwb") as lines:
                    self._talk(lines)

    def _talk(self, lines):
        def say(words):
            lines.write(f"{words}\r\n".encode())
            lines.flush()

        say("220 here")
        while line := lines.readline():
            if line.upper().startswith(b"DATA"):
                say("354 go on")
                body = b"".join(iter(lines.readline, b".\r\n"))
                self.messages.append(body.decode("utf-8", "replace"))
            say("221 bye" if line.upper().startswith(b"QUIT") else "250 well")
