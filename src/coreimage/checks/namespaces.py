"""User namespaces: what building without root needs from the kernel and from the administrator."""

import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coreimage.checks.check import Check, Status
from coreimage.errors import CoreImageError
from coreimage.lib import run

NEEDED_IDS = 65536
_PATIENCE = 20.0
_RANGE = re.compile(r"([^:#]+):(\d+):(\d+)")
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
# Kernel switches that forbid user namespaces: the value that does, and the one that does not.
_SWITCHES = {
    _APPARMOR: ("1", "0"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "user.max_user_namespaces": ("0", "15000"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks."""

    name: str
    number: int

    @property
    def is_root(self) -> bool:
        """Whether nothing has to be mapped."""
        return self.number == 0


def current_user() -> User:
    """Return who runs this process; a user without a name is called by number."""
    number = os.geteuid()
    try:
        return User(name=pwd.getpwuid(number).pw_name, number=number)
    except KeyError:
        return User(name=str(number), number=number)


def check_namespaces(user: User, *, settings: Path = Path("/proc/sys")) -> list[Check]:
    """Return the checks of user namespaces; for root they are not needed and pass."""
    obstacles = blocking_switches(settings)
    return [
        check_probe("user namespaces", ["--user", "--map-root-user"], user, obstacles),
        check_restriction(settings),
        *(
            check_range(Path(path), user, option)
            for path, option in (("/etc/subuid", "subuids"), ("/etc/subgid", "subgids"))
        ),
        *(check_mapper(name, user) for name in ("newuidmap", "newgidmap")),
        check_probe("mapped ids", ["--user", "--map-auto", "--map-root-user"], user, obstacles),
    ]


def check_probe(name: str, options: list[str], user: User, obstacles: list[str]) -> Check:
    """Return whether a namespace can really be made."""
    try:
        tried = run.run(["unshare", *options, "true"], check=False, timeout=_PATIENCE)
        said = tried.stderr.decode(errors="replace").strip() if tried.status else ""
        works = tried.status == 0
    except CoreImageError as error:
        said, works = error.message, False
    if works:
        return Check(name=name, status=Status.OK, found=f"made one with {' '.join(options)}")
    if user.is_root:
        return Check(name=name, status=Status.OK, found="do not work here; not needed by root")
    mend = "; ".join(obstacles) or "see the lines about subuid, subgid, newuidmap and newgidmap"
    return Check(name=name, status=Status.MISSING, found=said or "refused", mend=mend)


def blocking_switches(settings: Path) -> list[str]:
    """Return the commands that turn off what the kernel has against user namespaces."""
    return [
        f"sudo sysctl -w {key}={good}"
        for key, (bad, good) in _SWITCHES.items()
        if _setting(settings, key) == bad
    ]


def check_restriction(settings: Path) -> Check:
    """Return whether AppArmor restricts user namespaces, as Ubuntu has it since 23.10."""
    name = "apparmor restriction"
    if _setting(settings, _APPARMOR) != "1":
        return Check(name=name, status=Status.OK, found="none")
    return Check(
        name=name,
        status=Status.WARNING,
        found=f"{_APPARMOR} is 1",
        mend=f"if namespaces are refused: sudo sysctl -w {_APPARMOR}=0",
    )


def _setting(settings: Path, key: str) -> str:
    with suppress(OSError):
        return (settings / key.replace(".", "/")).read_text().strip()
    return ""


def check_range(path: Path, user: User, option: str) -> Check:
    """Return whether a user has a range of ids; `option` is what usermod calls the ids."""
    if user.is_root:
        return Check(name=path.name, status=Status.OK, found="not needed by root")
    with suppress(OSError):
        for owner, first, count in _ranges(path):
            if owner in {user.name, str(user.number)} and count >= NEEDED_IDS:
                found = f"{count} ids from {first}"
                return Check(name=path.name, status=Status.OK, found=found)
    return Check(
        name=path.name,
        status=Status.MISSING,
        found=f"user '{user.name}' has no range of {NEEDED_IDS} ids in {path}",
        mend=f"sudo usermod --add-{option} 100000-165535 {user.name}",
    )


def _ranges(path: Path) -> Iterator[tuple[str, int, int]]:
    # Source: subuid(5): owner, first id, number of ids.
    for line in path.read_text().splitlines():
        if match := _RANGE.fullmatch(line.strip()):
            yield match[1], int(match[2]), int(match[3])


def check_mapper(name: str, user: User) -> Check:
    """Return whether the program that maps ids is there and may do it."""
    path = run.find_program(name)
    if path is None:
        return Check(
            name=name,
            status=Status.OK if user.is_root else Status.MISSING,
            found="not installed; not needed by root" if user.is_root else "not installed",
            mend="install the package uidmap",
            packages=("uidmap",),
        )
    right = _right_of(Path(path))
    if right or user.is_root:
        return Check(name=name, status=Status.OK, found=f"{path} {right}".rstrip())
    return Check(
        name=name,
        status=Status.MISSING,
        found=f"{path} is neither setuid root nor has it a capability",
        mend="sudo apt-get install --reinstall uidmap",
    )


def _right_of(path: Path) -> str:
    state = path.stat()
    if state.st_mode & stat.S_ISUID and state.st_uid == 0:
        return "(setuid root)"
    with suppress(OSError):
        os.getxattr(path, "security.capability")
        return "(with a capability)"
    return ""
