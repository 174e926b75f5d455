"""Unpacking: where the members of an image's tarballs go.

The top level of a name decides: `system/` is the root file system, `assets/` and `hardware.yaml`
are what boots it. Archives are applied in order, later members replace earlier ones.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from coreimage.errors import DataError
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import tar
from coreimage.lib.files import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The tree that members of one top-level name go to, with that name or without it."""

    staging: Staging
    keep_name: bool = False


Routes = Mapping[str, Route | None]
"""Routes by top-level name; members of a name that is None are dropped."""


def unpack(stream: Reader, *, archive: str, routes: Routes, default: Route | None = None) -> None:
    """Apply a tar archive to the trees of `routes`, in one pass and in constant memory.

    Members whose top-level name is in none take `default`.

    Device nodes and pipes below dev/ are dropped: the kernel makes them. Raises DataError that
    names the archive for members without a route, other device nodes, hard links that leave
    their tree, and everything that Staging refuses.
    """
    with tar.reading(stream, archive=archive) as opened:
        for member in tar.members(opened, archive=archive):
            if not member.name and member.isdir():
                continue
            try:
                _apply(opened, member, _Choice(routes, default))
            except DataError as error:
                raise DataError(f"'{archive}': {error.message}", hint=error.hint) from error


def _apply(opened: tarfile.TarFile, member: tarfile.TarInfo, choice: "_Choice") -> None:
    route, path = choice.route(member.name)
    if route is None:
        return
    staging = route.staging
    mode, xattrs = member.mode & 0o7777, tar.xattrs(member)
    owner = {"uid": member.uid, "gid": member.gid, "mtime": int(member.mtime)}
    if member.isdir():
        staging.put_directory(path, mode=mode, xattrs=xattrs, **owner)
    elif member.issym():
        staging.put_symlink(path, member.linkname, xattrs=xattrs, **owner)
    elif member.islnk():
        staging.put_hard_link(path, _link_target(member, route, choice))
    elif member.isfile():
        staging.require_room(member.size)
        content = opened.extractfile(member)
        assert content is not None  # noqa: S101  a regular file has content
        staging.put_file(path, content, mode=mode, xattrs=xattrs, **owner)
    elif not (member.isdev() and path.startswith("dev/")):
        raise DataError(f"member '{member.name}' is neither file, directory nor link")


class _Choice:
    """Which way a member goes."""

    def __init__(self, routes: Routes, default: Route | None) -> None:
        self._routes = routes
        self._default = default

    def route(self, name: str) -> tuple[Route | None, str]:
        """Return the route of a member, and its path there."""
        top, _, rest = name.partition("/")
        if top not in self._routes and self._default is None:
            expected = ", ".join(f"'{each}'" for each in sorted(self._routes))
            raise DataError(f"member '{name}' is in none of {expected}")
        route = self._routes.get(top, self._default)
        return route, name if route is not None and route.keep_name else rest


def _link_target(member: tarfile.TarInfo, route: Route, choice: _Choice) -> str:
    other, target = choice.route(member.linkname)
    if other is None or other.staging is not route.staging:
        raise DataError(f"hard link '{member.name}' leads out of its tree, to '{member.linkname}'")
    return target
