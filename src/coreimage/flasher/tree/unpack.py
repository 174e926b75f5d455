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


def unpack(stream: Reader, *, archive: str, routes: Routes) -> None:
    """Apply a tar archive to the trees of `routes`, in one pass and in constant memory.

    Device nodes and pipes below dev/ are dropped: the kernel makes them. Raises DataError that
    names the archive for members without a route, other device nodes, hard links that leave
    their tree, and everything that Staging refuses.
    """
    with tar.reading(stream, archive=archive) as opened:
        for member in tar.members(opened, archive=archive):
            if not member.name and member.isdir():
                continue
            try:
                _apply(opened, member, routes)
            except DataError as error:
                raise DataError(f"'{archive}': {error.message}", hint=error.hint) from error


def _apply(opened: tarfile.TarFile, member: tarfile.TarInfo, routes: Routes) -> None:
    route, path = _route(member.name, routes)
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
        staging.put_hard_link(path, _link_target(member, route, routes))
    elif member.isfile():
        staging.require_room(member.size)
        content = opened.extractfile(member)
        assert content is not None  # noqa: S101  a regular file has content
        staging.put_file(path, content, mode=mode, xattrs=xattrs, **owner)
    elif not (member.isdev() and path.startswith("dev/")):
        raise DataError(f"member '{member.name}' is neither file, directory nor link")


def _route(name: str, routes: Routes) -> tuple[Route | None, str]:
    top, _, rest = name.partition("/")
    if top not in routes:
        expected = ", ".join(f"'{each}'" for each in sorted(routes))
        raise DataError(f"member '{name}' is in none of {expected}")
    route = routes[top]
    return route, name if route is not None and route.keep_name else rest


def _link_target(member: tarfile.TarInfo, route: Route, routes: Routes) -> str:
    other, target = _route(member.linkname, routes)
    if other is None or other.staging is not route.staging:
        raise DataError(f"hard link '{member.name}' leads out of its tree, to '{member.linkname}'")
    return target
