"""Recipes: every input of the two stages of a build, by a name that people understand."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from coreimage.rootfs.archives.archive import Archive, Resolution
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.plan import STUBS, Step, pack_argv, plan_build
from coreimage.rootfs.reuse.lock import LockedFile, digest
from coreimage.rootfs.tree.overlay import base_files

OF_THE_PACKAGES = "of the packages"
_EARLY_PARTS = ("ids/", "includes.chroot_before_packages/", "preseed/")


def tools() -> dict[str, str]:
    """Return the tools that shape bytes, with their versions."""
    return {"deflate": version("deflate")}


def package_recipe(
    selection: Selection,
    archive: Archive,
    resolution: Resolution,
    *,
    time: datetime | None,
    build_format: int,
) -> dict[str, str]:
    """Return all that decides about the tree after its packages are set up.

    Without `time` that of the packages counts.
    """
    recipe = {
        "format": str(build_format),
        "definition": selection.definition.name,
        "time": str(int(time.timestamp())) if time else OF_THE_PACKAGES,
        "steps": digest(json.dumps([_plain(step) for step in _steps(selection, archive)[0]])),
        "programs": digest(json.dumps([STUBS, pack_argv(0)])),
        "requested packages": digest(" ".join(selection.packages)),
    }
    recipe |= {f"environment {key}": value for key, value in selection.facts.items()}
    recipe |= {f"/{name}": digest(text) for name, text in base_files(selection, archive).items()}
    recipe |= {
        f"package {each.name}": f"{each.version} {each.architecture} {each.sha256}"
        for each in resolution.packages
    }
    return recipe | dict(_files(selection, early=True))


def image_recipe(
    selection: Selection, archive: Archive, packages: dict[str, str], *, gzip_level: int
) -> dict[str, str]:
    """Return all that decides about the artifacts, given the recipe of the package stage."""
    definition = selection.definition
    return {
        **packages,
        **{f"tool {name}": found for name, found in tools().items()},
        **dict(_files(selection, early=False)),
        "late steps": digest(json.dumps([_plain(step) for step in _steps(selection, archive)[1]])),
        "gzip level": str(gzip_level),
        "boot loader": selection.bootloader,
        "subproject": selection.subproject,
        "product": definition.product,
    }


def locked_file(path: Path) -> LockedFile:
    """Return what a lock says of a file of a definition."""
    if path.is_symlink():
        return LockedFile(kind="link", sha256=digest(str(path.readlink())))
    if path.is_dir():
        return LockedFile(kind="folder", sha256=digest(""))
    state = path.stat()
    return LockedFile(
        kind="program" if state.st_mode & 0o100 else "file", sha256=digest(path.read_bytes())
    )


def _files(selection: Selection, *, early: bool) -> Iterator[tuple[str, str]]:
    for name, path in selection.contributions():
        is_early = name.startswith(_EARLY_PARTS) or name.endswith(".chroot_early")
        # Lists of packages and archives count by what is in them.
        if is_early is early and not name.startswith(("archives/", "package-lists/")):
            found = locked_file(path)
            yield name, f"{found.kind} {found.sha256}"


def _steps(selection: Selection, archive: Archive) -> tuple[list[Step], list[Step]]:
    """Return the steps of a build that takes place nowhere in particular."""
    plan = plan_build(
        selection,
        archive,
        as_root=True,
        published_at=datetime.fromtimestamp(0, UTC),
        scratch=Path("/scratch"),
        temporary=Path("/room"),
    )
    return [*plan.essential, *plan.packages], list(plan.late)


def _plain(step: Step) -> list[object]:
    return [list(step.argv), step.where.value, str(step.stdin), sorted(step.binds), step.together]


def fingerprint(parts: list[object]) -> str:
    """Return the digest over some JSON values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
