"""Locking a build: writing down what it took in, and building the same once more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from coreimage.config import ArchiveSettings
from coreimage.errors import DataError
from coreimage.rootfs.archives.archive import Package, Resolution, Suite, locked_archive
from coreimage.rootfs.archives.extra import ExtraArchive
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.inputs import FORMAT, Inputs
from coreimage.rootfs.reuse.lock import (
    VERSION,
    Lock,
    LockedArchive,
    LockedDefinition,
    LockedExtra,
    LockedPackage,
    digest,
)
from coreimage.rootfs.reuse.recipe import locked_file, tools


def make_lock(inputs: Inputs, *, epoch: int, gzip_level: int) -> Lock:
    """Return the lock of some inputs."""
    selection = inputs.selection
    packages = [LockedPackage(**asdict(each)) for each in inputs.resolution.packages]
    return Lock(
        version=VERSION,
        format=FORMAT,
        source_date_epoch=epoch,
        definition=LockedDefinition(
            name=selection.definition.name,
            product=selection.definition.product,
            release=selection.release_name,
            series=selection.release.series,
            arch=selection.arch,
            device=selection.device,
            subproject=selection.subproject,
            sha256=selection.digest(),
        ),
        archives=[
            LockedArchive(uri=each.uri, suite=each.suite, sha256=each.sha256, date=each.date)
            for each in inputs.resolution.suites
        ],
        sources=list(inputs.archive.sources),
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
        files={name: locked_file(path) for name, path in selection.contributions()},
        tools=tools(),
        settings={"gzip": gzip_level},
    )


def locked_inputs(
    lock: Lock,
    selection: Selection,
    settings: ArchiveSettings,
    *,
    extras: Sequence[ExtraArchive] = (),
) -> Inputs:
    """Return the inputs that a lock names; raises DataError that names all that differ by now.

    `selection` is that of the lock, as the definition is now, and `extras` the archives beside the
    definition's own.
    """
    inputs = Inputs(
        selection=selection,
        archive=locked_archive(selection, settings, lock.sources, extras),
        resolution=Resolution(
            packages=[Package(**each.model_dump()) for each in lock.packages],
            suites=[
                Suite(uri=each.uri, suite=each.suite, sha256=each.sha256, date=each.date)
                for each in lock.archives
            ],
        ),
        time=datetime.fromtimestamp(lock.source_date_epoch, UTC),
    )
    now = make_lock(inputs, epoch=lock.source_date_epoch, gzip_level=gzip_level_of(lock))
    found = list(_differences(lock, now))
    if found:
        raise DataError(
            "the build that is locked cannot be made again:" + "".join(f"\n  {x}" for x in found),
            hint="put back what was changed, or build without --locked",
        )
    return inputs


def refuse_otherwise(
    name: str, *, asked: Mapping[str, str], locked: Mapping[str, Sequence[str]]
) -> None:
    """Raise DataError when something else is asked for than a lock has; `name` is the lock's.

    `locked` has the words, for each key of `asked`, that mean what is locked.
    """
    for key, value in asked.items():
        if value not in locked[key]:
            raise DataError(
                f"lock '{name}' is for {key} '{locked[key][0]}', not '{value}'",
                hint="a lock is built as it is: leave the option out, or build without --locked"
                if key != "definition"
                else f"build '{locked[key][0]}', or without --locked",
            )


def gzip_level_of(lock: Lock) -> int:
    """Return the level at which the tarballs were compressed."""
    level = lock.settings.get("gzip")
    if not isinstance(level, int):
        raise DataError("the lock has no setting 'gzip'", hint="it was edited; take the original")
    return level


def _differences(lock: Lock, now: Lock) -> Iterator[str]:
    """Yield a line for each input that is not as it was."""
    if lock.format != now.format:
        yield f"the format of builds was {lock.format}, is {now.format}"
    yield from _changes("tool", lock.tools, now.tools)
    yield from _changes("setting", lock.settings, now.settings)
    files = list(_changes("file", lock.files, now.files))
    yield from files
    if not files and lock.definition.sha256 != now.definition.sha256:
        yield "definition.toml has changed, or that of what it extends"
    extras = [{each.name: each for each in side.extra_archives} for side in (lock, now)]
    yield from _changes("extra archive", *extras)


def _changes(kind: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"{kind} '{name}' is gone"
        elif name not in before:
            yield f"{kind} '{name}' is new"
        elif before[name] != now[name]:
            plain = isinstance(now[name], int | str)
            yield f"{kind} '{name}' " + (
                f"was {before[name]}, is {now[name]}" if plain else "has changed"
            )
