"""A web server on a free port of this machine, for tests of what goes out: path -> function(handler). Not a test."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """`paths` maps a path to what answers it; `asked` keeps (method, path, headers, body) of every request."""

    def __init__(self):
        self.paths, self.asked, self.stop = {}, [], threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                site.asked.append((self.command, self.path, dict(self.headers), body))
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client may go away first: that is what is tested
                    site.paths.get(self.path, lambda handler: answer(handler, b"", code=404))(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


def answer(handler, body, *, code=200, length=True, said_length=None, **headers):
    """Send a body with its length said truly, falsely (said_length) or not at all."""
    handler.send_response(code)
    if length:
        handler.send_header("Content-Length", str(len(body) if said_length is None else said_length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
