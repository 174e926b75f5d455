"""Keyring files: a published keyring of this server, for systems that are to trust it."""

import hashlib
from functools import partial

from coreimage.errors import NotFoundError
from coreimage.feeds import KeyringFeed
from coreimage.systemimage.imports.generators import keyring
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.tree.pool import Recipe, SideCar


def resolve(feed: KeyringFeed, context: Context) -> Part:
    """Return the part that carries a published keyring; NotFoundError when it is not published."""
    path = context.workspace.channel_tree / f"state/gpg/{feed.keyring}.tar.xz"
    try:
        # A symlink's target: the state may be switched while we work.
        path = path.resolve(strict=True)
        both = path.read_bytes() + path.with_name(f"{path.name}.asc").read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"keyring '{feed.keyring}' is not published",
            hint="publish it with 'coreimage keyring generate'",
        ) from None
    recipe = Recipe(
        generator=keyring.NAME,
        generator_version=keyring.REVISION,
        source=path.name,
        sha256=hashlib.sha256(both).hexdigest(),
        settings={"xz": context.workspace.settings.compression.xz},
    )
    detail = f"{feed.prefix}={feed.keyring}"
    sidecar = SideCar(recipe=recipe, publication=f"gpg/{path.name}", version_detail=detail)
    # The time of the first member of a keyring is when it was made; any fixed one would do.
    write = partial(keyring.write, keyring=path, mtime=0)
    return Part(
        name=feed.prefix,
        sidecar=sidecar,
        make=lambda maker: maker.generate(write, name=feed.prefix, sidecar=sidecar),
    )
