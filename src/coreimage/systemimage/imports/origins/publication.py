"""Files of publications, of this server's own publisher or of another one."""

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

from coreimage.errors import ConfigError, NotFoundError
from coreimage.feeds import PublishedFeed, fill
from coreimage.lib import openpgp, trust
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import IMAGE_TYPE, build_id_key
from coreimage.systemimage.imports import publications
from coreimage.systemimage.imports.generators.table import GENERATORS
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.imports.publications import VerifiedPublication
from coreimage.systemimage.tree.pool import Recipe, SideCar


def resolve(feed: PublishedFeed, context: Context) -> Part:
    """Return the part that the newest publication of a feed gives.

    All files of an image that come from one place come from one publication. Raises NotFoundError
    when there is none, TrustError when its checksums are not signed as they must be.
    """
    source = _publication(feed, context)
    generator, name = GENERATORS[feed.generator], _choose(source, _file_names(feed, context))
    recipe = Recipe(
        generator=feed.generator,
        generator_version=generator.revision,
        source=name,
        sha256=source.sha256(name),
        settings={"xz": context.workspace.settings.compression.xz},
    )
    sidecar = SideCar(
        recipe=recipe,
        publication=source.name,
        version_detail=f"{feed.prefix}={source.version}",
    )
    return Part(
        name=feed.prefix,
        sidecar=sidecar,
        make=lambda maker: maker.convert(
            source.directory / name, generator.write, name=feed.prefix, sidecar=sidecar
        ),
        title=source.title,
        mtime=_midnight(source.version),
    )


def _choose(source: VerifiedPublication, names: Sequence[str]) -> str:
    """Return the first of these names that the publisher has signed.

    Raises NotFoundError when that file is not there: nothing unsigned, such as that it was removed,
    decides what an image is made of.
    """
    name = next((each for each in names if each in source.sums), names[-1])
    if name in source.sums and not (source.directory / name).is_file():
        raise NotFoundError(
            f"'{source.directory}' lacks '{name}', which its publisher has signed",
            hint="put it back, or publish a new build",
        )
    return name


def _file_names(feed: PublishedFeed, context: Context) -> list[str]:
    """Return the names that the file may have, the one to prefer first."""
    values = {
        "series": feed.series or context.series,
        "product": feed.product or context.product or "core",
        "base_arch": context.arch.partition(".")[0],
    }
    if values["series"] is None:
        raise ConfigError(
            f"channel '{context.channel}': a file of '{feed.generator}' has no 'series'",
            hint="give it 'series', or 'project' and 'release'",
        )
    templates = [feed.file] if feed.file else GENERATORS[feed.generator].files
    known = {key: str(value) for key, value in values.items()}
    return list(dict.fromkeys(fill(context.fill(each), known) for each in templates))


def _place(feed: PublishedFeed, context: Context) -> tuple[Hashable, ...]:
    """Return what decides which publication is the newest."""
    project, series = feed.project or context.project, feed.series or context.series
    place = (feed.path,) if feed.path else (project, series)
    return (*place, feed.accept or context.accept, feed.keyring)


def _publication(feed: PublishedFeed, context: Context) -> VerifiedPublication:
    place = _place(feed, context)
    if place not in context.memory:
        wanted = [
            _file_names(each, context)
            for each in context.feeds
            if isinstance(each, PublishedFeed) and _place(each, context) == place
        ]
        context.memory[place] = _newest(feed, context, wanted)
    found: VerifiedPublication = context.memory[place]
    return found


def _newest(feed: PublishedFeed, context: Context, wanted: list[list[str]]) -> VerifiedPublication:
    only_good = (feed.accept or context.accept) == "good"
    tree = context.workspace.publications
    project, series = feed.project or context.project, feed.series or context.series
    if feed.path is not None:
        parent, title = context.path(feed.path), project or feed.path.name
        version = publications.newest_version(
            parent, wanted=wanted, only_good=only_good, note=context.progress.note
        )
    else:
        if project is None or series is None:
            raise ConfigError(
                f"channel '{context.channel}': a file of '{feed.generator}' has no 'project'",
                hint="give it 'project' and 'release', or a 'path' of publications",
            )
        newest = publications.find_newest(
            tree,
            project=project,
            series=series,
            wanted=wanted,
            only_good=only_good,
            note=context.progress.note,
        )
        parent, title, version = tree / project / series / IMAGE_TYPE, project, newest.version
    directory = parent / version
    name = directory.relative_to(tree) if directory.is_relative_to(tree) else directory
    check: publications.Check = partial(context.chain.verify, level=KeyringType.IMAGE_SIGNING)
    if feed.keyring is not None:
        keyring, level = publisher_keys(context, feed.keyring), str(feed.keyring)
        check = partial(trust.verify, keyring=keyring, blacklist=None, level=level)
    return publications.verify_directory(
        directory,
        name=str(name),
        title=" ".join(filter(None, (title, series, version))),
        check=check,
    )


def publisher_keys(context: Context, path: Path) -> Path:
    """Return a keyring of coreimage.toml, armoured or not, as a binary one; raises ConfigError."""
    try:
        data = context.path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"channel '{context.channel}': keyring '{path}' cannot be read: {error.strerror}"
        ) from error
    target = context.scratch / f"publisher-{sha256(data).hexdigest()[:16]}.gpg"
    target.write_bytes(openpgp.dearmor(data, name=str(path)))
    return target


def _midnight(build_id: str) -> int:
    """Return the beginning of a build's day in UNIX seconds: equal inputs give equal bytes."""
    day = datetime.strptime(str(build_id_key(build_id)[0]), "%Y%m%d").replace(tzinfo=UTC)
    return int(day.timestamp())
