"""What a root filesystem build will run, as plain data."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coreimage.rootfs.archive import Archive
from coreimage.rootfs.definition import Selection

# Where includes and hooks lie inside the tree while it is built.
INSIDE = ".coreimage-build"
# Where they lie beside it, for hooks that see the tree from outside.
_OUTSIDE = "$1.coreimage-build"
_IN_TREE = 'env --chdir="$1" chroot "$1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsPlan:
    """The command that makes the tree, its environment, and the files that it takes in.

    The tree leaves the command as a tar stream on standard output; `env` is added to ours.
    """

    argv: Sequence[str]
    env: dict[str, str]
    archives_overlay: Path | None
    early_overlay: Path
    overlay: Path
    epoch: int


def plan_build(
    selection: Selection,
    archive: Archive,
    *,
    as_root: bool,
    published_at: datetime,
    scratch: Path,
    temporary: Path,
) -> RootfsPlan:
    """Return what builds the tree.

    `scratch` receives the overlays; `temporary` must be open to the user ids that belong to us,
    because the tree is unpacked there by the root of a user namespace. Files reach the tree by
    mmdebstrap's own tar-in, which reads them outside of the namespace: a home folder that is
    closed to others is no obstacle.
    """
    early, late, apt = (scratch / f"{name}.tar" for name in ("early", "overlay", "archives"))
    extra = archive.apt_files()
    epoch = int(published_at.timestamp())
    definition = selection.definition
    argv = [
        "mmdebstrap",
        f"--mode={'root' if as_root else 'unshare'}",
        "--variant=minbase",
        "--format=tar",
        f"--architectures={selection.arch}",
        f"--components={','.join(selection.release.components)}",
        f"--include={','.join(selection.packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in definition.exclude_paths),
        *(f"--dpkgopt=path-include={pattern}" for pattern in definition.include_paths),
        *([f"--setup-hook=tar-in {apt.name} /"] if extra else []),
        f"--essential-hook=tar-in {early.name} /",
        *(f"--essential-hook={command}" for command in _early_commands(selection)),
        f"--customize-hook=tar-in {late.name} /",
        *(f"--customize-hook={command}" for command in _late_commands(selection, extra)),
        archive.suite,
        "-",
        *archive.sources,
    ]
    return RootfsPlan(
        argv=argv,
        env={
            "SOURCE_DATE_EPOCH": str(epoch),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(temporary),
            **selection.facts,
        },
        archives_overlay=apt if extra else None,
        early_overlay=early,
        overlay=late,
        epoch=epoch,
    )


def _early_commands(selection: Selection) -> list[str]:
    """Return what runs after the essential packages are configured and before the others."""
    return [
        *([f"{_IN_TREE} sh /{INSIDE}/pin-ids"] if selection.pins() is not None else []),
        *(
            f"{_IN_TREE} debconf-set-selections {_quoted(f'preseed/{name}')}"
            for name in selection.preseeds()
        ),
        *(f"{_IN_TREE} {_quoted(name)}" for name in selection.hooks("chroot_early")),
    ]


def _late_commands(selection: Selection, extra: Iterable[str]) -> list[str]:
    """Return what runs on the finished tree: hooks inside, clearing up, hooks outside."""
    archives = " ".join(f'"$1/etc/apt/{name}"' for name in extra)
    outside = selection.hooks("binary")
    return [
        *(f"{_IN_TREE} {_quoted(name)}" for name in selection.hooks("chroot")),
        # Extra archives are for the build; an image says by includes where its updates come from.
        *([f"rm -f {archives}"] if archives else []),
        *([f'mv "$1/{INSIDE}" "{_OUTSIDE}"'] if outside else [f'rm -rf "$1/{INSIDE}"']),
        *(f'env --chdir="$1" "{_OUTSIDE}"/{shlex.quote(name)} "$1"' for name in outside),
        *([f'rm -rf "{_OUTSIDE}"'] if outside else []),
    ]


def _quoted(name: str) -> str:
    """Return the path inside the tree of one of our files, for a shell."""
    return shlex.quote(f"/{INSIDE}/{name}")
