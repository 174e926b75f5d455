"""What a root filesystem build will run, as plain data."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coreimage.rootfs.archive import Archive
from coreimage.rootfs.definition import Selection

# Where includes and hooks lie inside the tree while it is built.
INSIDE = ".coreimage-build"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsPlan:
    """The command that makes the tree, its environment, and the files that it takes in.

    The tree leaves the command as a tar stream on standard output; `env` is added to ours.
    """

    argv: Sequence[str]
    env: dict[str, str]
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
    early, late = scratch / "early.tar", scratch / "overlay.tar"
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
        f"--essential-hook=tar-in {early.name} /",
        f"--customize-hook=tar-in {late.name} /",
        *(
            f'--customize-hook=env --chdir="$1" chroot "$1" {shlex.quote(f"/{INSIDE}/{name}")}'
            for name in selection.hooks("chroot")
        ),
        # What the build host left: its name and resolver, and our own scaffolding.
        f'--customize-hook=rm -rf "$1/{INSIDE}"',
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
        },
        early_overlay=early,
        overlay=late,
        epoch=epoch,
    )
