"""Publishing: finished builds of one build id become a dated directory with signed checksums."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from coreimage.errors import CoreImageError, DataError
from coreimage.lib.files import (
    fsync_directory,
    fsync_tree,
    link_atomically,
    lock,
    scratch_directory,
    sha256_of,
)
from coreimage.model.publication import (
    Publication,
    build_id_key,
    format_checksums,
    is_build_id,
    parse_checksums,
)

CHECKSUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.gpg"
_WAIT_FOR_OTHERS = 60.0

Seal = Callable[[Path, Path], AbstractContextManager[object]]
"""Writes the detached signature of the first file to the second; its key stays until the end."""


def publish(
    tree: Path,
    publication: Publication,
    *,
    artifacts: Mapping[str, tuple[Path, str]],
    provenance: Mapping[str, object],
    seal: Seal,
    locks: Path,
) -> Path:
    """Make a publication visible, and `pending` point at the newest; return its directory.

    `artifacts` are the published name, the file and its sha256. A file that does not have its
    digest any more is a DataError and publishes nothing. A publication that is there with the
    same checksums is left as it is.
    """
    place = tree / publication.path
    sums = {name: digest for name, (_, digest) in artifacts.items()}
    with locked(locks, purpose=f"publish {publication.path}"):
        if place.is_dir():
            _require_same(place, sums)
        else:
            with scratch_directory(place.parent) as scratch:
                text = format_checksums(sums)
                _fill(scratch, artifacts, provenance)
                (scratch / CHECKSUMS).write_text(text)
                scratch.chmod(0o755)
                fsync_tree(scratch)  # the slow part, while keys may still change
                with seal(scratch / CHECKSUMS, scratch / SIGNATURE):
                    for path in scratch.iterdir():
                        path.chmod(0o644)
                    fsync_tree(scratch)
                    scratch.rename(place)
                fsync_directory(place.parent)
        names = [path.name for path in place.parent.iterdir() if is_build_id(path.name)]
        point(place.parent / "pending", max(names, key=build_id_key))
    return place


def locked(locks: Path, *, purpose: str) -> AbstractContextManager[object]:
    """Return the lock that whoever changes the publication tree holds; BusyError after a while."""
    return lock(locks / "publication.lock", purpose=purpose, wait=_WAIT_FOR_OTHERS)


def point(mark: Path, version: str) -> None:
    """Make a mark such as pending or current point at a build id, in one step."""
    if not mark.is_symlink() or mark.readlink() != Path(version):
        link_atomically(mark, version)


def _require_same(place: Path, sums: Mapping[str, str]) -> None:
    text = (place / CHECKSUMS).read_text()
    if parse_checksums(text, source=str(place / CHECKSUMS)) != sums:
        raise CoreImageError(
            f"'{place}' is published already, with other files",
            hint="a publication never changes; request a build with a new build id",
        )


def _fill(
    folder: Path, artifacts: Mapping[str, tuple[Path, str]], provenance: Mapping[str, object]
) -> None:
    for name, (source, digest) in artifacts.items():
        try:
            os.link(source, folder / name)
        except OSError:  # another file system, or another owner
            shutil.copyfile(source, folder / name)
        # What is published is what was looked at, whatever happens to the source meanwhile.
        found = sha256_of(folder / name)
        if found != digest:
            raise DataError(
                f"'{source}' is not what was built: its sha256 is {found}, expected {digest}",
                hint="request a new build",
            )
    (folder / ".publish_info").write_text(json.dumps(provenance, indent=1) + "\n")
