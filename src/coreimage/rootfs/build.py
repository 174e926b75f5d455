"""Building a root filesystem: resolve, run the plan, split the tree, write what belongs to it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from coreimage.config import ArchiveSettings
from coreimage.errors import CommandError, CoreImageError, DataError
from coreimage.lib import run
from coreimage.lib.files import (
    CHUNK,
    fsync_directory,
    fsync_tree,
    require_space,
    scratch_directory,
    sha256_of,
    write_atomically,
)
from coreimage.lib.progress import Progress
from coreimage.rootfs import ids
from coreimage.rootfs.archive import Archive, Resolution, find_archive, resolve
from coreimage.rootfs.definition import Selection
from coreimage.rootfs.extra import ExtraArchive
from coreimage.rootfs.installed import InstalledPackage, installed
from coreimage.rootfs.licences import declared_licences
from coreimage.rootfs.lock import (
    VERSION,
    Lock,
    LockedArchive,
    LockedDefinition,
    LockedExtra,
    LockedFile,
    LockedPackage,
    digest,
)
from coreimage.rootfs.manifest import manifest
from coreimage.rootfs.namespace import require_user_namespace, unpacking_room
from coreimage.rootfs.overlay import write_overlays
from coreimage.rootfs.plan import RootfsPlan, plan_build
from coreimage.rootfs.split import SplitResult, split

# Raised whenever the same inputs would give other bytes than before.
FORMAT = 2
_ROOM_FOR_TREE = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that decides about the bytes of a build."""

    selection: Selection
    archive: Archive
    resolution: Resolution
    published_at: datetime

    def fingerprint(self) -> str:
        """Return a digest that changes when a build would give something new."""
        parts = [FORMAT, self.selection.digest(), self.resolution.digest()]
        if self.archive.extras:
            parts += [text.decode() for text in self.archive.apt_files().values()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsBuild:
    """What a build left in its output directory: file names by kind, digests by file name."""

    files: Mapping[str, str]
    sha256: Mapping[str, str]
    fingerprint: str
    published_at: datetime


def artifact_names(project: str) -> dict[str, str]:
    """Return the file names of a build by kind; only files named livecd.* leave a builder."""
    stem = f"livecd.{project}"
    return {
        "rootfs": f"{stem}.rootfs.tar.gz",
        "device": f"{stem}.device.tar.gz",
        "manifest": f"{stem}.manifest",
        "lock": f"{stem}.lock.json",
        "sbom": f"{stem}.cdx.json",
        "record": f"{stem}.build.json",
    }


def expected_files(selection: Selection) -> dict[str, str]:
    """Return the file names that a build of a selection leaves, by kind."""
    names = artifact_names(selection.definition.name)
    if not selection.definition.device_tarball:
        del names["device"]
    return names


def gather(
    selection: Selection,
    settings: ArchiveSettings,
    cache: Path,
    *,
    extras: Sequence[ExtraArchive] = (),
) -> Inputs:
    """Look up what a build would take in now; `extras` are archives beside the definition's own.

    SOURCE_DATE_EPOCH decides about time stamps when it is set, else the newest date of the
    archive's suites: the same packages give the same bytes.
    """
    with scratch_directory(cache) as scratch:
        archive = find_archive(selection, settings, scratch, extras)
        resolution = resolve(selection, archive, scratch)
    return Inputs(
        selection=selection,
        archive=archive,
        resolution=resolution,
        published_at=_epoch() or resolution.published_at,
    )


def make_lock(inputs: Inputs, gzip_level: int) -> Lock:
    """Return the lock of some inputs."""
    selection = inputs.selection
    packages = [
        LockedPackage(
            name=each.name,
            version=each.version,
            architecture=each.architecture,
            file=each.file,
            size=each.size,
            sha256=each.sha256,
            uri=each.uri,
        )
        for each in inputs.resolution.packages
    ]
    return Lock(
        version=VERSION,
        format=FORMAT,
        source_date_epoch=int(inputs.published_at.timestamp()),
        definition=LockedDefinition(
            name=selection.definition.name,
            product=selection.definition.product,
            release=selection.release_name,
            series=selection.release.series,
            arch=selection.arch,
            device=selection.device,
            sha256=selection.digest(),
        ),
        archives=[
            LockedArchive(uri=each.uri, suite=each.suite, sha256=each.sha256, date=each.date)
            for each in inputs.resolution.suites
        ],
        extra_archives=[
            LockedExtra(
                name=each.name,
                sources=digest(each.sources),
                preferences=digest(each.preferences),
                keys=list(each.keys),
            )
            for each in inputs.archive.extras
        ],
        packages=sorted(packages, key=lambda each: (each.name, each.architecture)),
        files=dict(map(_locked_file, selection.contributions())),
        tools={},
        settings={"gzip": gzip_level},
    )


def _locked_file(contribution: tuple[str, Path]) -> tuple[str, LockedFile]:
    name, path = contribution
    if path.is_symlink():
        return name, LockedFile(kind="link", sha256=digest(str(path.readlink())))
    kind: Literal["program", "file"] = "program" if path.stat().st_mode & 0o100 else "file"
    return name, LockedFile(kind=kind, sha256=sha256_of(path))


def _epoch() -> datetime | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    try:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(text)
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(f"SOURCE_DATE_EPOCH is '{text}', expected UNIX seconds") from None


def build(inputs: Inputs, output: Path, *, gzip_level: int, progress: Progress) -> RootfsBuild:
    """Build a root filesystem into `output`, which must not exist or be empty.

    Nothing is left in `output` when the build fails. Raises CommandError, DataError, RightsError
    and UnavailableError.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CoreImageError(
            f"'{output}' exists and is not an empty directory", hint="choose another --output"
        )
    as_root = os.geteuid() == 0
    if not as_root:
        require_user_namespace()
    with ExitStack() as stack:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_directory(output.resolve().parent))
        room = stack.enter_context(unpacking_room(as_root=as_root))
        require_space(room, _ROOM_FOR_TREE, purpose="the tree")
        plan = plan_build(
            inputs.selection,
            inputs.archive,
            as_root=as_root,
            published_at=inputs.published_at,
            scratch=scratch,
            temporary=room,
        )
        write_overlays(inputs.selection, inputs.archive, plan)
        parts = scratch / "parts"
        parts.mkdir()
        built = _run_plan(inputs, plan, parts, gzip_level=gzip_level, progress=progress)
        parts.chmod(0o755)
        fsync_tree(parts)
        if output.exists():
            output.rmdir()
        parts.rename(output)
        fsync_directory(output.resolve().parent)
        return built


def _run_plan(
    inputs: Inputs, plan: RootfsPlan, parts: Path, *, gzip_level: int, progress: Progress
) -> RootfsBuild:
    names = expected_files(inputs.selection)
    progress.note(run.shell_text(plan.argv))
    with run.start(plan.argv, env=plan.env, cwd=plan.overlay.parent, stdout=run.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        try:
            result = split(
                process.stdout,
                rootfs=parts / names["rootfs"],
                device=parts / names["device"] if "device" in names else None,
                bootloader=inputs.selection.bootloader,
                epoch=plan.epoch,
                level=gzip_level,
            )
        except DataError as error:
            # A command that failed leaves no tree; its own words are the ones that help. It is
            # heard to its end: a stream that nobody reads would make it fail.
            while process.stdout.read(CHUNK):
                pass
            if process.wait() == 0:
                raise
            raise _failure(process.returncode) from error
    if process.returncode:
        raise _failure(process.returncode)
    return _finish(inputs, parts, names, result, gzip_level=gzip_level)


def _failure(status: int) -> CommandError:
    return CommandError(
        f"mmdebstrap failed, {run.describe_status(status)}",
        hint="its own words are in the log, just above this message",
    )


def _finish(
    inputs: Inputs,
    parts: Path,
    names: Mapping[str, str],
    result: SplitResult,
    *,
    gzip_level: int,
) -> RootfsBuild:
    """Check ids, write manifest, lock, bill of materials and record beside the tarballs."""
    selection = inputs.selection
    pins = selection.pins()
    if pins is not None:
        folder = selection.folders[-1] / "series" / selection.release.series / "ids"
        ids.check(pins, passwd=result.passwd, group=result.group, folder=folder)
    packages = list(installed(result.status))
    (parts / names["manifest"]).write_text(manifest(packages), encoding="utf-8")
    (parts / names["lock"]).write_text(make_lock(inputs, gzip_level).to_json(), encoding="utf-8")
    written = ("rootfs", "device", "manifest", "lock")
    digests = {names[kind]: sha256_of(parts / names[kind]) for kind in written if kind in names}
    tarballs = {names[kind]: digests[names[kind]] for kind in ("rootfs", "device") if kind in names}
    (parts / names["sbom"]).write_text(_sbom(inputs, packages, result, tarballs), encoding="utf-8")
    digests[names["sbom"]] = sha256_of(parts / names["sbom"])
    record = {
        "definition": selection.definition.name,
        "product": selection.definition.product,
        "release": selection.release_name,
        "series": selection.release.series,
        "arch": selection.arch,
        "device": selection.device,
        "extra_archives": [each.name for each in inputs.archive.extras],
        "fingerprint": inputs.fingerprint(),
        "source_date_epoch": int(inputs.published_at.timestamp()),
        "kernel": result.kernels.get("vmlinuz"),
        "entries": result.entries,
        "rootfs_bytes": result.rootfs_size,
        "device_bytes": result.device_size,
        "packages": [[each.file, each.sha256] for each in inputs.resolution.packages],
        "sha256": digests,
    }
    write_atomically(parts / names["record"], json.dumps(record, indent=1) + "\n")
    return RootfsBuild(
        files=names,
        sha256=digests,
        fingerprint=inputs.fingerprint(),
        published_at=inputs.published_at,
    )


def _sbom(
    inputs: Inputs,
    packages: Sequence[InstalledPackage],
    result: SplitResult,
    tarballs: Mapping[str, str],
) -> str:
    # Only builds need it, and it takes a quarter of a second to import.
    from coreimage.rootfs.sbom import Contents, bill_of_materials

    selection = inputs.selection
    return bill_of_materials(
        Contents(
            name=selection.definition.name,
            title=selection.definition.title,
            distribution=selection.definition.distribution,
            release=selection.release_name,
            series=selection.release.series,
            arch=selection.arch,
            made_at=inputs.published_at,
            packages=packages,
            artifacts=tarballs,
            digests={
                (each.name, each.version, each.architecture): each.sha256
                for each in inputs.resolution.packages
            },
            licences={name: declared_licences(text) for name, text in result.copyrights.items()},
        )
    )
