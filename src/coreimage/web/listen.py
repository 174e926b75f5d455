"""Listening: the socket, and who has the port when we cannot have it."""

import errno
import socket
from contextlib import suppress
from pathlib import Path

from coreimage.errors import BusyError, CoreImageError, RightsError, UsageError

_BACKLOG = 1024
_LISTENING = "0A"  # TCP_LISTEN of Linux, include/net/tcp_states.h
_HOLDER_COLUMN = 9


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises BusyError that names the process that has the port, RightsError, UsageError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"host '{host}' has no address", hint="name an address of this machine"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _complaint(error, host, port) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket's root."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _complaint(error: OSError, host: str, port: int) -> CoreImageError:
    if error.errno == errno.EADDRINUSE:
        return BusyError(
            f"port {port} of '{host}' is in use{_holder(port)}",
            hint="end that, or choose another port: --port 0 takes any that is free",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return RightsError(
            f"port {port} needs a right that you do not have",
            hint="choose a port above 1023, or let a web server in front listen on it",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"'{host}' is not an address of this machine",
            hint="use 127.0.0.1 for this machine alone, 0.0.0.0 for all networks",
        )
    return CoreImageError(f"cannot listen on port {port} of '{host}': {error.strerror}")


def _holder(port: int) -> str:
    """Return ' by NAME, process N' for who listens on a port, as far as we may know it."""
    sockets = {f"socket:[{inode}]" for inode in _listeners(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    return f" by '{(process / 'comm').read_text().strip()}', process {process.name}"
    return " by another user's process" if sockets else ""


def _listeners(port: int) -> set[str]:
    """Return the inodes of sockets that listen on a port, from /proc/net (proc(5))."""
    inodes = set[str]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(fields[_HOLDER_COLUMN])
    return inodes
