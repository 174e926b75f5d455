"""Building without root: the user ids that belong to us, and the room where trees are unpacked."""

import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coreimage.errors import RightsError
from coreimage.lib import run
from coreimage.lib.files import scratch_directory, sweep
from coreimage.lib.temporary import temporary_place, temporary_places

_NEEDED_IDS = 65536
# Source: subuid(5).
_RANGE = re.compile(r"(?P<owner>[^:]+):[0-9]+:(?P<count>[0-9]+)")


def require_user_namespace() -> None:
    """Raise RightsError unless we can map a range of user ids into a namespace of our own."""
    user = _user_name()
    for path, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        if not _has_range(Path(path), user):
            raise RightsError(
                f"user '{user}' has no range of {_NEEDED_IDS} ids in {path}",
                hint=f"an administrator can add one: usermod {option} 100000-165535 {user}",
            )
    probe = ["unshare", "--user", "--map-auto", "--map-root-user", "true"]
    tried = run.run(probe, check=False)
    if tried.status:
        raise RightsError(
            "user namespaces do not work here: " + tried.stderr.decode(errors="replace").strip(),
            hint="'coreimage doctor' says what is missing; as root none is needed",
        )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _has_range(path: Path, user: str) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    names = {user, str(os.geteuid())}
    matches = [_RANGE.fullmatch(line) for line in lines]
    return any(
        match and match["owner"] in names and int(match["count"]) >= _NEEDED_IDS
        for match in matches
    )


@contextmanager
def unpacking_room(needed: int, *, as_root: bool) -> Iterator[Path]:
    """Yield a directory in which the namespace's root may make files, removed at the end.

    It is in memory when there is plenty for `needed` bytes.
    """
    own = f"coreimage-{os.geteuid()}"
    parent = temporary_place(needed) / own
    parent.mkdir(mode=0o711, exist_ok=True)
    _require_own(parent)
    parent.chmod(0o711)
    # Rooms of builds that were killed; those of builds at work are left alone. The parent stays
    # too: another build may be about to make its room in it.
    for place in temporary_places():
        if _is_own(place / own):
            sweep(place / own, prepare=None if as_root else _reclaim)
    with scratch_directory(parent) as room:
        room.chmod(0o1777)
        try:
            yield room
        finally:
            if not as_root:
                _reclaim(room)


def _require_own(parent: Path) -> None:
    if not _is_own(parent):
        raise RightsError(
            f"'{parent}' is not ours", hint="remove it, or set TMPDIR to another place"
        )


def _is_own(path: Path) -> bool:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return state.st_uid == os.geteuid() and stat.S_ISDIR(state.st_mode)


def _reclaim(room: Path) -> None:
    """Take over files that belong to mapped ids in a room, so that we may remove them.

    A tree has them in its depth, wherever a build has ended.
    """
    if any(room.iterdir()):
        mapped = ["unshare", "--user", "--map-auto", "--map-root-user"]
        run.run([*mapped, "chown", "--recursive", "--no-dereference", "0:0", room], check=False)
        run.run([*mapped, "chmod", "--recursive", "u+rwX", room], check=False)
