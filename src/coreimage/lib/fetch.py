"""Downloads: bounded in size and time, resumed, checked, and under their name only when whole.

Nothing of what a server says is believed: not its Content-Length, not where it redirects to, not
that it will ever finish. A watchdog ends connections that are too slow, whichever part of the
answer they dawdle in.
"""

import fcntl
import http.client
import os
import re
import secrets
import ssl
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from coreimage.errors import NotFoundError, TrustError, UnavailableError, UsageError
from coreimage.lib import files
from coreimage.lib.progress import Silent, Task
from coreimage.lib.transport import PATIENT, SCHEMES, Limits, Watchdog, opener, tls_context

_USER_AGENT = "coreimage/0.1"
_GONE = (404, 410)
_TRY_AGAIN = (408, 425, 429)
_PARTIAL = 206
_UNSATISFIABLE = 416
_SERVER_ERROR = 500
_VALIDATOR = "user.coreimage.validator"
# A strong entity tag, or a date: RFC 9110, section 13.1.5.
_VALIDATORS = re.compile(r'"[!#-~]{1,200}"|[A-Z][a-z]{2}, [0-9A-Za-z: ]{10,30} GMT')
_LONGEST_NOTE = 2048
# An attempt that brought this much is no reason to give up soon.
_GOOD_PROGRESS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is expected of a file: at most `max_size` bytes, exactly `size`, this `sha256`."""

    max_size: int
    size: int | None = None
    sha256: str | None = None

    @property
    def limit(self) -> int:
        """The number of bytes after which we stop reading."""
        return self.max_size if self.size is None else min(self.size, self.max_size)


class _AttemptError(Exception):
    """An attempt failed in a way that the next one may not."""


def is_url(text: str) -> bool:
    """Tell whether a server is one that is asked over the network."""
    return urlsplit(text).scheme.lower() in SCHEMES


def local_path(text: str) -> Path:
    """Return the path that a path or a file:// URL names; UsageError for URLs of other schemes."""
    parts = urlsplit(text)
    if "://" in text and parts.scheme != "file":
        raise UsageError(
            f"'{text}' is an address that cannot be asked",
            hint="give one with http:// or https://, or a folder of this machine",
        )
    return Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else text)


def fetch(
    url: str,
    target: Path,
    *,
    wanted: Wanted,
    limits: Limits = PATIENT,
    task: Task | None = None,
    tls: ssl.SSLContext | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Bring a file from a URL or a local path to `target`.

    With a sha256, what an attempt brought is kept beside the target for the next one, in this run
    or a later one. Raises NotFoundError when the server has no such file, UnavailableError when it
    cannot be had whole within the limits, or soon after `stop` was set, TrustError when it is not
    what was wanted.
    """
    with Silent().task(url, None) as silent, _part(target, keep=wanted.sha256 is not None) as part:
        job = _Job(
            url=url,
            part=part,
            wanted=wanted,
            limits=limits,
            task=task or silent,
            tls=tls,
            end=time.monotonic() + limits.deadline,
            stop=stop or threading.Event(),
        )
        if is_url(url):
            _with_retries(job)
        else:
            _copy(job)
        part.file.flush()
        with suppress(OSError):
            os.removexattr(part.file.fileno(), _VALIDATOR)
        os.fsync(part.file.fileno())
        part.path.replace(target)
    files.fsync_directory(target.parent)


@dataclass(slots=True, kw_only=True)
class _Part:
    """The unfinished file."""

    path: Path
    file: BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    url: str
    part: _Part
    wanted: Wanted
    limits: Limits
    task: Task
    tls: ssl.SSLContext | None
    end: float
    stop: threading.Event
    hint: str = field(default="try again later; what was downloaded so far is not lost")

    def have(self) -> int:
        return os.fstat(self.part.file.fileno()).st_size

    def restart(self) -> None:
        self.task.advance(-self.have())
        self.part.file.truncate(0)

    def goes_on(self) -> bool:
        """Whether there is time for one more attempt."""
        return time.monotonic() < self.end and not self.stop.is_set()

    def remember(self, validator: str) -> None:
        """Note which state of the server's file the part is of, beside its bytes."""
        if self.wanted.sha256 is None:
            return
        note = f"{self.url}\n{validator}".encode("utf-8", "replace")
        # Where the file system cannot keep it, the digest alone decides, at the end.
        with suppress(OSError):
            os.setxattr(self.part.file.fileno(), _VALIDATOR, note[:_LONGEST_NOTE])

    def validator(self) -> str:
        """Return what a server calls the state that the part is of, for this URL alone."""
        try:
            note = os.getxattr(self.part.file.fileno(), _VALIDATOR).decode()
        except (OSError, UnicodeDecodeError):
            return ""
        url, _, validator = note.partition("\n")
        return validator if url == self.url and _VALIDATORS.fullmatch(validator) else ""


@contextmanager
def _part(target: Path, *, keep: bool) -> Iterator[_Part]:
    """Yield the unfinished file, ours alone; with `keep`, a later run may go on with it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.part")
    file = _claimed(path) if keep else None
    if file is None:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file, keep = path.open("x+b"), False
    try:
        yield _Part(path=path, file=file)
    finally:
        inode = os.fstat(file.fileno())
        with suppress(FileNotFoundError):
            if (not keep or inode.st_size == 0) and os.path.samestat(path.stat(), inode):
                path.unlink()
        file.close()


def _claimed(path: Path) -> BinaryIO | None:
    """Open and lock an unfinished file; None when another run is busy with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    file = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def _copy(job: _Job) -> None:
    job.part.file.truncate(0)
    path = local_path(job.url)
    try:
        with open_regular(path) as source:
            _receive(job, partial(source.read, files.CHUNK), job.wanted.size)
        _check(job)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file '{path}'") from None
    except _AttemptError as error:
        job.restart()
        raise UnavailableError(f"'{path}': {error}") from None
    except TrustError:
        job.restart()
        raise


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, but not a pipe or a device, which could keep us for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise UnavailableError(f"'{path}' is not a regular file")
    return file


def _with_retries(job: _Job) -> None:
    resumed = job.have() > 0
    job.task.advance(job.have())
    attempt, complaint = 0, ""
    while attempt < job.limits.attempts and job.goes_on():
        if attempt:
            _pause(job, attempt)
        before = job.have()
        try:
            _attempt(job)
            _check(job)
        except _AttemptError as error:
            complaint = str(error)
        except TrustError:
            # What an earlier run left may be to blame; that is found out once.
            job.restart()
            if not resumed:
                raise
            resumed = False
            continue
        else:
            return
        attempt = 1 if job.have() - before > _GOOD_PROGRESS else attempt + 1
    raise UnavailableError(
        f"cannot download '{job.url}': {complaint or 'the time is up'}", hint=job.hint
    )


def _pause(job: _Job, attempt: int) -> None:
    seconds = job.limits.backoff * 2 ** (attempt - 1) * (1 + secrets.randbelow(1000) / 1000)
    job.stop.wait(max(0.0, min(seconds, job.end - time.monotonic())))


def _attempt(job: _Job) -> None:
    """Ask once; what arrives is appended to the part. Raises _AttemptError or a final error."""
    if job.wanted.sha256 is None:
        job.restart()
    have = job.have()
    if job.wanted.size is not None and have > job.wanted.size:
        job.restart()
        have = 0
    if have and have == job.wanted.size:
        return
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := job.validator():
            headers["If-Range"] = validator
    request = urllib.request.Request(job.url, headers=headers)  # noqa: S310  is_url was asked
    with Watchdog(job.limits, job.end, job.stop) as watchdog:
        try:
            with opener(watchdog, job.tls or tls_context()).open(
                request, timeout=job.limits.window
            ) as response:
                total = _promised(job, response, have)
                _receive(job, partial(_read, response, watchdog), total)
                if watchdog.reason:
                    # A body of no stated length ends like this, too.
                    raise _AttemptError(watchdog.reason)
        except urllib.error.HTTPError as error:
            error.close()
            _refused(job, error.code, error.reason)
        except (_AttemptError, OSError, http.client.HTTPException, ValueError) as error:
            _refuse_certificate(job, error)
            raise _AttemptError(watchdog.reason or _complaint(error, job.limits)) from error


def _refuse_certificate(job: _Job, error: Exception) -> None:
    """Raise UnavailableError for a certificate that is not trusted: it will not get better."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise UnavailableError(
            f"the TLS certificate of '{job.url}' is refused: {reason.verify_message}",
            hint="trust its issuer on this machine, or ask another server",
        ) from error


def _complaint(error: Exception, limits: Limits) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"nothing arrived in {limits.window:g} seconds"
    return str(reason) or type(reason).__name__


def _refused(job: _Job, code: int, reason: str) -> None:
    said = f"the server answered {code} {reason}"
    if code == _UNSATISFIABLE:
        job.restart()
        raise _AttemptError(said)
    if code >= _SERVER_ERROR or code in _TRY_AGAIN:
        raise _AttemptError(said)
    job.restart()
    if code in _GONE:
        raise NotFoundError(f"the server has no '{job.url}'")
    raise UnavailableError(f"cannot download '{job.url}': {said}")


def _promised(job: _Job, response: http.client.HTTPResponse, have: int) -> int | None:
    """Check the head of an answer and return how long the whole file is said to be."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise _AttemptError(f"the server sends it encoded as '{encoding}'")
    if have and response.status != _PARTIAL:
        job.restart()
        have = 0
    elif have:
        begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if begin != str(have):
            job.restart()
            raise _AttemptError("the server continues at another place than it was asked for")
    if not have:
        heads = response.headers
        job.remember(heads.get("ETag") or heads.get("Last-Modified") or "")
    length = response.headers.get("Content-Length")
    if length is None or not length.isdecimal():
        return job.wanted.size
    total = have + int(length)
    if job.wanted.size is not None and total != job.wanted.size:
        raise _AttemptError(f"it has {total} bytes there, expected {job.wanted.size}")
    if total > job.wanted.max_size:
        raise _AttemptError(f"it has {total} bytes, more than the {job.wanted.max_size} allowed")
    return total


def _read(response: http.client.HTTPResponse, watchdog: Watchdog) -> bytes:
    # read1: what has arrived. read would wait for the whole chunk and never see a slow server.
    data = response.read1(files.CHUNK)
    watchdog.received += len(data)
    return data


def _receive(job: _Job, read: Callable[[], bytes], total: int | None) -> None:
    """Append what is read to the part, up to the limit, and see that `total` bytes are there."""
    size = job.part.file.seek(0, os.SEEK_END)
    try:
        while data := read():
            size += len(data)
            if size > job.wanted.limit:
                job.restart()
                raise _AttemptError(f"it is longer than {job.wanted.limit} bytes")
            job.part.file.write(data)
            job.task.advance(len(data))
    finally:
        job.part.file.flush()
    if total is not None and size != total:
        raise _AttemptError(f"it ended after {size} of {total} bytes")


def _check(job: _Job) -> None:
    if job.wanted.sha256 is None:
        return
    job.part.file.seek(0)
    check_digest(job.part.file, job.wanted.sha256, name=job.url)


def check_digest(file: BinaryIO, expected: str, *, name: str) -> None:
    """Hash an open file from its start; TrustError with both digests when it is another one."""
    file.seek(0)
    reader = files.HashingReader(file)
    while reader.read(files.CHUNK):
        pass
    file.seek(0)
    found = reader.sha256
    if found != expected:
        raise TrustError(
            f"'{name}' is not what was signed: its sha256 is {found}, expected {expected}",
            hint="the file was damaged or replaced on its way; try another server",
        )
