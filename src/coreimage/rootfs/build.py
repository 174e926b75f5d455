"""Building a root filesystem: packages, the tree, its artifacts, and what can be used again."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreimage.errors import CommandError, CoreImageError, DataError, NoSpaceError
from coreimage.lib.files import (
    fsync_directory,
    fsync_tree,
    require_space,
    scratch_directory,
    sha256_of,
    write_atomically,
)
from coreimage.lib.progress import Progress
from coreimage.rootfs.archives.download import bring
from coreimage.rootfs.definitions import ids
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.inputs import Inputs, gather
from coreimage.rootfs.packages import debs
from coreimage.rootfs.packages.installed import InstalledPackage, installed
from coreimage.rootfs.packages.licences import declared_licences
from coreimage.rootfs.packages.manifest import manifest
from coreimage.rootfs.plan import RootfsPlan, plan_build
from coreimage.rootfs.reuse.cache import Cache, Entry, Recipe, Shelf, link_or_copy
from coreimage.rootfs.reuse.locking import make_lock
from coreimage.rootfs.reuse.recipe import OF_THE_PACKAGES
from coreimage.rootfs.tarballs.split import SplitResult, split
from coreimage.rootfs.tree import steps as stage
from coreimage.rootfs.tree.accounts import accounts_in
from coreimage.rootfs.tree.namespace import require_user_namespace, unpacking_room
from coreimage.rootfs.tree.overlay import write_overlays

_ROOM_FOR_TREE = 2 << 30
# Packages without compression, their tree, and what the initramfs is made of, per byte of packages.
_UNPACKED = 12
__all__ = ["Inputs", "RootfsBuild", "artifact_names", "build", "expected_files", "gather"]
_TREE = "tree.tar.zst"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsBuild:
    """What a build left in its output directory: file names by kind, digests by file name.

    `reused` tells that nothing had to be built.
    """

    files: Mapping[str, str]
    sha256: Mapping[str, str]
    fingerprint: str
    published_at: datetime
    reused: bool = False


def artifact_names(project: str) -> dict[str, str]:
    """Return the file names of a build by kind; only files named livecd.* leave a builder."""
    stem = f"livecd.{project}"
    return {
        "rootfs": f"{stem}.rootfs.tar.gz",
        "device": f"{stem}.device.tar.gz",
        "manifest": f"{stem}.manifest",
        "sbom": f"{stem}.cdx.json",
        "lock": f"{stem}.lock.json",
        "record": f"{stem}.build.json",
    }


# What is written anew for every build: it also says when and where the packages were found.
_OWN = ("lock", "record")


def expected_files(selection: Selection) -> dict[str, str]:
    """Return the file names that a build of a selection leaves, by kind."""
    names = artifact_names(selection.definition.name)
    if not selection.has_device_tarball:
        del names["device"]
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One build that is going on."""

    inputs: Inputs
    cache: Cache
    names: Mapping[str, str]
    gzip_level: int
    progress: Progress
    scratch: Path
    parts: Path
    fresh: bool
    earlier: Path | None

    def path(self, kind: str) -> Path:
        return self.parts / self.names[kind]


def build(
    inputs: Inputs,
    output: Path,
    *,
    gzip_level: int,
    progress: Progress,
    cache: Cache,
    fresh: bool = False,
    earlier: Path | None = None,
) -> RootfsBuild:
    """Build a root filesystem into `output`, which must not exist or be empty.

    What was built before from the same inputs is used again, unless the build is to be `fresh`;
    packages always are. `earlier` is the record of a build whose users and groups must keep their
    numbers. Nothing is left in `output` when the build fails. Raises CommandError, DataError,
    NoSpaceError, NotFoundError, RightsError, TrustError and UnavailableError.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CoreImageError(
            f"'{output}' exists and is not an empty directory", hint="choose another --output"
        )
    pins = inputs.selection.pins()
    if earlier is not None and pins is not None:
        ids.refuse_moved_pins(ids.read_numbers(earlier), pins, name=f"'{earlier}'")
    with ExitStack() as stack:
        stack.enter_context(_full_disk_explained(output))
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_directory(output.resolve().parent))
        parts = scratch / "parts"
        parts.mkdir()
        job = _Job(
            inputs=inputs,
            cache=cache,
            names=expected_files(inputs.selection),
            gzip_level=gzip_level,
            progress=progress,
            scratch=scratch,
            parts=parts,
            fresh=fresh,
            earlier=earlier,
        )
        built = _reuse_image(job) or _make_image(job)
        parts.chmod(0o755)
        fsync_tree(parts)
        if output.exists():
            output.rmdir()
        parts.rename(output)
        fsync_directory(output.resolve().parent)
        return built


@contextmanager
def _full_disk_explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpaceError(
            f"no space is left for the build in '{output.parent}'",
            hint="free some space, or choose another --output",
        ) from error


def _find(job: _Job, shelf: Shelf, recipe: Recipe) -> Entry | None:
    """Return what was made from the same; a time that is that of the packages may be given too."""
    if job.fresh:
        return None
    time = job.inputs.time
    entry = shelf.find(recipe)
    if entry is None and time is not None:
        entry = shelf.find({**recipe, "time": OF_THE_PACKAGES})
        if entry is not None and entry.notes.get("epoch") != int(time.timestamp()):
            return None
    return entry


def _reuse_image(job: _Job) -> RootfsBuild | None:
    """Hand out what an earlier build of the same inputs has left, if it is all there."""
    shelf = job.cache.images
    entry = _find(job, shelf, job.inputs.image_recipe(job.gzip_level))
    if entry is None:
        return None
    digests = entry.notes["sha256"]
    try:
        for name, expected in digests.items():
            link_or_copy(entry.path / name, job.parts / name)
            if sha256_of(job.parts / name) != expected:
                raise DataError(name)
    except (OSError, DataError):
        shelf.discard(entry)
        for path in job.parts.iterdir():
            path.unlink()
        return None
    job.progress.note(
        "nothing changed: packages, definition and tools are those of an earlier build"
    )
    return replace(_record(job, entry.notes), reused=True)


def _make_image(job: _Job) -> RootfsBuild:
    """Make the artifacts, and keep them for builds to come."""
    as_root = os.geteuid() == 0
    if not as_root:
        require_user_namespace()
    with ThreadPoolExecutor(1) as pool:
        needed = max(_ROOM_FOR_TREE, _UNPACKED * job.inputs.resolution.size)
        with unpacking_room(needed, as_root=as_root) as room:
            require_space(room, _ROOM_FOR_TREE, purpose="the tree")
            plan = _reuse_stage(job, room) or _make_stage(job, room)
            stage.run_steps(plan, plan.late, progress=job.progress)
            # Before it is packed, which takes long.
            _check_pins(job, *accounts_in(plan.layout.tree))
            result = _pack(job, plan)
            # While one core removes the tree.
            finishing = pool.submit(_finish, job, result, plan.epoch)
        notes = finishing.result()
    files = {name: job.parts / name for name in notes["sha256"]}
    job.cache.images.put(job.inputs.image_recipe(job.gzip_level), files, notes)
    return _record(job, notes)


def _plan(job: _Job, room: Path, epoch: int) -> RootfsPlan:
    plan = plan_build(
        job.inputs.selection,
        job.inputs.archive,
        as_root=os.geteuid() == 0,
        published_at=datetime.fromtimestamp(epoch, UTC),
        scratch=job.scratch,
        temporary=room,
    )
    write_overlays(job.inputs.selection, plan)
    return plan


def _reuse_stage(job: _Job, room: Path) -> RootfsPlan | None:
    """Lay out the tree of an earlier build with the same packages, if there is one."""
    shelf = job.cache.stages
    entry = _find(job, shelf, job.inputs.package_recipe())
    if entry is None:
        return None
    try:
        with (entry.path / _TREE).open("rb") as tree:
            job.progress.note("packages did not change: their tree is that of an earlier build")
            plan = _plan(job, room, int(entry.notes["epoch"]))
            stage.restore_tree(plan, tree)
    except (FileNotFoundError, CommandError, DataError):
        shelf.discard(entry)
        stage.remove_tree(room / "tree", as_root=os.geteuid() == 0)
        return None
    return plan


def _make_stage(job: _Job, room: Path) -> RootfsPlan:
    """Install the packages into a new tree, and keep it for builds to come."""
    packages = bring(
        job.inputs.resolution.packages,
        job.scratch / "packages",
        store=job.cache.packages,
        scratch=job.scratch,
        progress=job.progress,
    )
    time = job.inputs.time
    epoch = int(time.timestamp()) if time else max(map(debs.built_at, packages))
    plan = _plan(job, room, epoch)
    stage.install_packages(
        plan, job.inputs.selection, job.inputs.archive, packages, progress=job.progress
    )
    shelf = job.cache.stages
    if shelf.open:
        tree = job.scratch / _TREE
        stage.save_tree(plan, tree)
        shelf.put(job.inputs.package_recipe(), {_TREE: tree}, {"epoch": epoch})
        tree.unlink()
    return plan


def _pack(job: _Job, plan: RootfsPlan) -> SplitResult:
    with job.progress.task("pack", None, unit="steps"), stage.packed(plan) as stream:
        return split(
            stream,
            rootfs=job.path("rootfs"),
            device=job.path("device") if "device" in job.names else None,
            bootloader=job.inputs.selection.bootloader,
            level=job.gzip_level,
        )


def _finish(job: _Job, result: SplitResult, epoch: int) -> dict[str, Any]:
    """Check ids, write manifest and bill of materials; return what the record says of all."""
    _check_pins(job, result.passwd, result.group)
    packages = list(installed(result.status))
    job.path("manifest").write_text(manifest(packages), encoding="utf-8")
    tarballs = [job.names[kind] for kind in ("rootfs", "device") if kind in job.names]
    digests = {name: sha256_of(job.parts / name) for name in tarballs}
    bill = _bill(job, packages, result, epoch, digests)
    job.path("sbom").write_text(bill, encoding="utf-8")
    small = [name for kind, name in job.names.items() if kind not in (*_OWN, "rootfs", "device")]
    return {
        "epoch": epoch,
        "kernel": result.kernels.get("vmlinuz"),
        "entries": result.entries,
        "ids": ids.numbers(result.passwd, result.group),
        "rootfs_bytes": result.rootfs_size,
        "device_bytes": result.device_size,
        "sha256": digests | {name: sha256_of(job.parts / name) for name in small},
    }


def _check_pins(job: _Job, passwd: bytes, group: bytes) -> None:
    selection = job.inputs.selection
    pins = selection.pins()
    if pins is not None:
        folder = selection.folders[-1] / "series" / selection.release.series / "ids"
        ids.check(pins, passwd=passwd, group=group, folder=folder)


def _bill(
    job: _Job,
    packages: Sequence[InstalledPackage],
    result: SplitResult,
    epoch: int,
    digests: Mapping[str, str],
) -> str:
    # Only builds need it, and it takes a quarter of a second to import.
    from coreimage.rootfs.packages.sbom import Contents, bill_of_materials

    selection = job.inputs.selection
    return bill_of_materials(
        Contents(
            name=selection.definition.name,
            title=selection.definition.title,
            distribution=selection.definition.distribution,
            release=selection.release_name,
            series=selection.release.series,
            arch=selection.arch,
            made_at=datetime.fromtimestamp(epoch, UTC),
            packages=packages,
            artifacts=digests,
            digests={
                (each.name, each.version, each.architecture): each.sha256
                for each in job.inputs.resolution.packages
            },
            licences={name: declared_licences(text) for name, text in result.copyrights.items()},
        )
    )


def _record(job: _Job, notes: Mapping[str, Any]) -> RootfsBuild:
    """Compare ids, and write lock and record, which say when and where packages were found."""
    inputs, selection = job.inputs, job.inputs.selection
    found = notes.get("ids", {"user": {}, "group": {}})  # what older versions have made has none
    if job.earlier is not None:
        ids.refuse_moved(ids.read_numbers(job.earlier), found, name=f"'{job.earlier}'")
    lock = make_lock(inputs, epoch=notes["epoch"], gzip_level=job.gzip_level)
    job.path("lock").write_text(lock.to_json(), encoding="utf-8")
    digests = {**notes["sha256"], job.names["lock"]: sha256_of(job.path("lock"))}
    record = {
        "definition": selection.definition.name,
        "product": selection.definition.product,
        "release": selection.release_name,
        "series": selection.release.series,
        "arch": selection.arch,
        "device": selection.device,
        "subproject": selection.subproject,
        "extra_archives": [each.name for each in inputs.archive.extras],
        "fingerprint": inputs.fingerprint(),
        "source_date_epoch": notes["epoch"],
        **{key: notes[key] for key in ("kernel", "entries", "rootfs_bytes", "device_bytes")},
        "ids": found,
        "packages": sorted([each.file, each.sha256] for each in inputs.resolution.packages),
        "sha256": digests,
    }
    write_atomically(job.path("record"), json.dumps(record, indent=1) + "\n")
    return RootfsBuild(
        files=job.names,
        sha256=digests,
        fingerprint=inputs.fingerprint(),
        published_at=datetime.fromtimestamp(notes["epoch"], UTC),
    )
