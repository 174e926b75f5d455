"""Locking a build: writing down what it took in, and building the same once more."""

from coreimage.rootfs.inputs import FORMAT, Inputs
from coreimage.rootfs.lock import (
    VERSION,
    Lock,
    LockedArchive,
    LockedDefinition,
    LockedExtra,
    LockedPackage,
    digest,
)
from coreimage.rootfs.recipe import locked_file, tools


def make_lock(inputs: Inputs, *, epoch: int, gzip_level: int) -> Lock:
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
        source_date_epoch=epoch,
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
