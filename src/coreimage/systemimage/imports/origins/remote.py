"""Files of the newest full image of another server, verified before anything is signed again."""

import hashlib

from coreimage.errors import ConfigError
from coreimage.feeds import RemoteFeed
from coreimage.lib.fetch import is_url, local_path
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.imports.origins.channel import file_of
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.mirrors import remote
from coreimage.systemimage.mirrors.remote import Remote
from coreimage.systemimage.tree.pool import SUFFIX, PoolFile, Recipe, SideCar

_NAME, _REVISION = "remote-system-image", 1


def resolve(feed: RemoteFeed, context: Context) -> Part:
    """Return the part that another server's newest image gives.

    Raises NotFoundError that names what there is, UnavailableError, and TrustError for whatever
    cannot be traced to the pinned archive-master, has expired, or is older than what was seen.
    """
    server = _open(feed, context)
    channel = context.fill(feed.channel)
    device = context.fill(feed.device or context.device)
    found = server.index(channel, device)
    where = f"'{device}' in channel '{channel}' of '{server.name}'"
    entry = file_of(found.index.newest_full(), feed.file, where=where)
    image = found.index.newest_full()
    assert image is not None  # noqa: S101  it has a file
    recipe = Recipe(
        generator=_NAME,
        generator_version=_REVISION,
        source=entry.path,
        sha256=entry.checksum,
        settings={},
    )
    details = dict(each.partition("=")[::2] for each in image.version_detail.split(","))
    detail = f"{feed.prefix}={details.get(feed.file) or image.version}"
    origin = f"{server.name}{entry.path}"
    sidecar = SideCar(recipe=recipe, publication=origin, version_detail=detail)

    def make(maker: Maker) -> PoolFile:
        target = context.workspace.cache / "imports" / f"{entry.checksum}{SUFFIX}"
        with context.progress.task(f"downloading {feed.file}", entry.size) as task:
            server.payload(entry, target, found.chain, task=task)
        made = maker.adopt(target, name=feed.prefix, sidecar=sidecar)
        for each in (target, target.with_name(f"{target.name}.asc")):
            each.unlink(missing_ok=True)
        return made

    return Part(name=feed.prefix, sidecar=sidecar, make=make)


def _open(feed: RemoteFeed, context: Context) -> Remote:
    """Open a server once for all files that come from it."""
    address = feed.server if is_url(feed.server) else str(context.path(local_path(feed.server)))
    key = (_NAME, address, feed.archive_master)
    if key not in context.memory:
        pinned = context.path(feed.archive_master)
        if not pinned.is_file():
            raise ConfigError(
                f"channel '{context.channel}': there is no archive_master '{pinned}'",
                hint="get the server's archive-master.tar.xz in a way that you trust",
            )
        digest = hashlib.sha256(pinned.read_bytes() + address.encode()).hexdigest()[:32]
        scratch = context.scratch / f"remote-{digest}"
        scratch.mkdir()
        context.memory[key] = remote.open_remote(
            address,
            archive_master=pinned,
            scratch=scratch,
            now=context.now,
            memory=context.workspace.state / "remotes",
            allow_unfresh=feed.allow_unfresh,
        )
    found: Remote = context.memory[key]
    return found
