"""HTTP connections under watch: too slow ones are ended, redirects lead to web servers only."""

import http.client
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self
from urllib.parse import urljoin, urlsplit

from coreimage.errors import UnavailableError

SCHEMES = ("http", "https")
_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient we are. Rates are bytes a second, times are seconds.

    Any `window` in which fewer than `min_rate * window` bytes arrive ends an attempt, and so does
    one in which no answer begins. `deadline` is for one file with all its attempts; `attempts`
    counts those in a row that brought next to nothing.
    """

    min_rate: float = 512.0
    window: float = 20.0
    deadline: float = 4 * 3600.0
    attempts: int = 5
    backoff: float = 0.5


PATIENT = Limits()
# How soon a download ends that nobody waits for any more, in seconds.
_NOTICED = 0.1


class Watchdog:
    """Shuts a connection down when too little arrives, the time is up, or `stop` is set."""

    def __init__(self, limits: Limits, end: float, stop: threading.Event) -> None:
        self._limits = limits
        self._end = end
        self._stop = stop
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.received = 0
        self.reason = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def add(self, connection: socket.socket) -> None:
        # A duplicate: TLS takes the socket object over, and shutdown works on either.
        self._sockets.append(connection.dup())

    def _watch(self) -> None:
        before, judged = 0, time.monotonic()
        while not self._done.wait(min(_NOTICED, self._limits.window)):
            now = time.monotonic()
            amount = self.received - before
            if self._stop.is_set():
                self.reason = "it is not wanted any more"
            elif now >= self._end:
                self.reason = "the time for this file is up"
            elif now - judged >= self._limits.window:
                if amount < self._limits.min_rate * self._limits.window:
                    self.reason = f"only {amount} bytes in {self._limits.window:g} seconds"
                before, judged = before + amount, now
            if self.reason:
                for each in self._sockets:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                return


class _Connection(http.client.HTTPConnection):
    watchdog: Watchdog

    def connect(self) -> None:
        super().connect()
        self.watchdog.add(self.sock)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """The order of the bases matters: the socket is watched before TLS begins."""


def _watched(kind: type[_Connection], watchdog: Watchdog) -> Any:
    def connection(*arguments: Any, **options: Any) -> _Connection:
        made = kind(*arguments, **options)
        made.watchdog = watchdog
        return made

    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(_Connection, self._watchdog), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watchdog: Watchdog, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._watchdog = watchdog
        self._tls = context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        kind = _watched(_SecureConnection, self._watchdog)
        return self.do_open(kind, request, context=self._tls)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow redirects to web servers only, and from TLS to no other."""
        scheme = urlsplit(urljoin(req.full_url, newurl)).scheme
        downgraded = urlsplit(req.full_url).scheme == "https" and scheme != "https"
        if scheme not in SCHEMES or downgraded:
            fp.close()
            raise UnavailableError(f"'{req.full_url}' redirects to '{newurl}', which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """Return the host's trust in TLS certificates, or none at all."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def opener(watchdog: Watchdog, tls: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Return what opens URLs; put together by hand, as the default one knows file:// too."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(watchdog),
        _Https(watchdog, tls),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    return director
