"""Delivering an open file: types, validators, ranges. Source: RFC 9110, sections 8, 13 and 14."""

import os
import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import PurePosixPath
from typing import BinaryIO

import anyio
from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK = 512 << 10
_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    ".json": "application/json",
    ".asc": "application/pgp-signature",
    ".gpg": "application/pgp-signature",
    ".xz": "application/x-xz",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".manifest": _TEXT,
    ".log": _TEXT,
    ".txt": _TEXT,
    ".yaml": _TEXT,
    ".ini": _TEXT,
}
_RANGE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*\Z", re.ASCII)
_MAX_DIGITS = 18
OK, PARTIAL, UNCHANGED, UNSATISFIABLE = 200, 206, 304, 416


def content_type(name: str) -> str:
    """Return the media type of a file from its name; what is unknown is never shown as a page."""
    if name.endswith("SUMS"):
        return _TEXT
    return _TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a file: its first byte and its length."""

    start: int
    length: int


def parse_range(header: str, size: int) -> Span | None:
    """Return the part that a Range header asks for, or None when it is to be ignored.

    Ignored are malformed headers and lists of ranges: the whole file is a right answer to those.
    A length of 0 means that the file has no such part.
    """
    match = _RANGE.match(header)
    if match is None or max(map(len, match.groups())) > _MAX_DIGITS:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), int(last) if last else size - 1
        if last and end < start:
            return None
        return Span(start=start, length=max(0, min(end, size - 1) - start + 1))
    if not last:
        return None
    length = min(int(last), size)
    return Span(start=size - length, length=length)


class Delivery(Response):
    """A part of an open file, read as it is sent, in constant memory; closes the file.

    The file stays the one that the headers describe, also when its name is given to another one.
    """

    def __init__(self, file: BinaryIO, span: Span, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers)
        self.headers["content-length"] = str(span.length)
        self._file = file
        self._span = span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send headers, and for GET the bytes, until all are sent or nobody listens."""
        with self._file:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] == "HEAD" or not self._span.length:
                await send({"type": "http.response.body", "body": b""})
                return
            async with anyio.create_task_group() as tasks:

                async def give_up_when_alone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                tasks.start_soon(give_up_when_alone)
                await self._send_bytes(send)
                tasks.cancel_scope.cancel()

    async def _send_bytes(self, send: Send) -> None:
        position, rest = self._span.start, self._span.length
        while rest:
            chunk = await to_thread.run_sync(
                os.pread, self._file.fileno(), min(_CHUNK, rest), position
            )
            if not chunk:
                # Too short an answer: the server notices, and closes the connection.
                break
            position += len(chunk)
            rest -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": rest > 0})


def deliver(file: BinaryIO, request: Request, *, name: str, cache: str) -> Response:
    """Return the response to a request for an open file; the response closes it.

    `cache` is the value of Cache-Control.
    """
    asked = request.headers
    state = os.fstat(file.fileno())
    headers = {
        "content-type": content_type(name),
        "etag": f'"{state.st_ino:x}-{state.st_size:x}-{state.st_mtime_ns:x}"',
        "last-modified": formatdate(int(state.st_mtime), usegmt=True),
        "cache-control": cache,
        "accept-ranges": "bytes",
    }
    if is_unchanged(asked, etag=headers["etag"], modified=int(state.st_mtime)):
        file.close()
        kept = {key: headers[key] for key in ("etag", "last-modified", "cache-control")}
        return Response(status_code=UNCHANGED, headers=kept)
    whole = Span(start=0, length=state.st_size)
    span = _wanted_span(asked, headers, state.st_size) if request.method == "GET" else None
    if span is None:
        return Delivery(file, whole, status=OK, headers=headers)
    if not span.length:
        file.close()
        return Response(
            status_code=UNSATISFIABLE, headers={"content-range": f"bytes */{state.st_size}"}
        )
    headers["content-range"] = f"bytes {span.start}-{span.start + span.length - 1}/{state.st_size}"
    return Delivery(file, span, status=PARTIAL, headers=headers)


def is_unchanged(asked: Headers, *, etag: str, modified: int) -> bool:
    """Tell whether the client has the file already; `modified` is in seconds since the epoch."""
    known = asked.get("if-none-match")
    if known is not None:
        tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
        return etag in tags or tags == ["*"]
    try:
        since = parsedate_to_datetime(asked.get("if-modified-since", ""))
        return modified <= since.timestamp()
    except (ValueError, OverflowError):
        return False


def _wanted_span(asked: Headers, headers: dict[str, str], size: int) -> Span | None:
    """Return the part to send, or None for the whole: the client's part may be of another file."""
    condition = asked.get("if-range")
    if condition is not None and condition not in (headers["etag"], headers["last-modified"]):
        return None
    return parse_range(asked.get("range", ""), size)
