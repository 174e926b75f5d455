"""A web server that lies on demand: each path has a behaviour, a function that answers."""

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

Behaviour = Callable[["Handler", bytes], None]


@dataclass(slots=True)
class Liar:
    """The server: `lies` by path, and the requests that it saw as (path, Range or "")."""

    url: str
    lies: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder, honestly where no lie is told."""

    root: Path
    liar: Liar
    released: threading.Event
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.liar.requests.append((self.path, self.headers.get("Range", "")))
        path = self.root / self.path.lstrip("/")
        content = path.read_bytes() if path.is_file() else None
        lie = self.liar.lies.get(self.path)
        if lie is not None:
            lie(self, content or b"")
        elif content is None:
            self.send_error(404)
        else:
            honest(self, content)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


def honest(handler: Handler, content: bytes) -> None:
    wanted = handler.headers.get("Range", "")
    begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    headers = {"Content-Length": str(len(content) - begin)}
    if wanted:
        headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    handler.head(206 if wanted else 200, headers)
    handler.wfile.write(content[begin:])


def flipped(handler: Handler, content: bytes) -> None:
    middle = len(content) // 2
    honest(handler, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def truncated(handler: Handler, content: bytes) -> None:
    """Promise everything, send half, also when asked for the rest."""
    handler.head(200, {"Content-Length": str(len(content))})
    handler.wfile.write(content[: len(content) // 2])


def stalled(handler: Handler, content: bytes) -> None:
    handler.head(200, {"Content-Length": str(len(content))})
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.released.wait()


def silent(handler: Handler, content: bytes) -> None:
    del content
    handler.released.wait()


def trickling_head(handler: Handler, content: bytes) -> None:
    del content
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with_patience(handler, b"x")


def trickling(handler: Handler, content: bytes) -> None:
    handler.head(200, {"Content-Length": str(len(content))})
    with_patience(handler, content[:1])


def endless(handler: Handler, content: bytes) -> None:
    del content
    handler.head(200, {})
    with_patience(handler, b"\0" * (1 << 20), pause=0.0)


def longer(handler: Handler, content: bytes) -> None:
    honest(handler, content + b"more")


def hidden_longer(handler: Handler, content: bytes) -> None:
    """Send more than the file has, without saying so first."""
    handler.head(200, {})
    handler.wfile.write(content + b"more")


def shorter(handler: Handler, content: bytes) -> None:
    honest(handler, content[:-1])


def packed(handler: Handler, content: bytes) -> None:
    handler.head(200, {"Content-Length": str(len(content)), "Content-Encoding": "gzip"})
    handler.wfile.write(content)


def failing(handler: Handler, content: bytes) -> None:
    del content
    handler.send_error(503)


def with_patience(handler: Handler, piece: bytes, *, pause: float = 0.05) -> None:
    """Send a piece again and again, until the client leaves."""
    try:
        while not handler.released.wait(pause):
            handler.wfile.write(piece)
            handler.wfile.flush()
    except OSError:
        pass


def instead(other: bytes) -> Behaviour:
    """Answer with another content, of a file that there is somewhere."""

    def answer(handler: Handler, content: bytes) -> None:
        del content
        honest(handler, other)

    return answer


def redirect(target: str) -> Behaviour:
    def answer(handler: Handler, content: bytes) -> None:
        del content
        handler.head(302, {"Location": target, "Content-Length": "0"})

    return answer


def first(times: int, lie: Behaviour, then: Behaviour = honest) -> Behaviour:
    """Lie the first few times only."""
    left = iter(range(times))

    def answer(handler: Handler, content: bytes) -> None:
        (then if next(left, None) is None else lie)(handler, content)

    return answer


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are what the tests are about."""


@contextmanager
def serving(root: Path, *, certificate: Path | None = None) -> Iterator[Liar]:
    """Serve a folder on a port of our own; with a certificate and its key in one file, by TLS."""
    released = threading.Event()
    liar = Liar(url="")
    kind = type("_Bound", (Handler,), {"root": root, "liar": liar, "released": released})
    server = _Server(("127.0.0.1", 0), kind)
    scheme = "http"
    if certificate is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    liar.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield liar
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
