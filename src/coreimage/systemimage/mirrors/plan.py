"""Mirror plans: what a mirror is to have, and what of it is missing."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from coreimage.errors import NotFoundError
from coreimage.lib import files, trust
from coreimage.model.index import ImageFile
from coreimage.systemimage.mirrors.remote import Remote, RemoteIndex

Payload = tuple[ImageFile, trust.Chain]
"""A file of an image, and the chain that verifies it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a mirror is to have: patterns of channels and names of devices; none mean all."""

    channels: Sequence[str] = ()
    devices: Sequence[str] = ()

    def takes(self, channel: str, device: str) -> bool:
        """Tell whether the mirror has the images of a device in a channel."""
        of_channel = not self.channels or any(
            fnmatch.fnmatchcase(channel, pattern) for pattern in self.channels
        )
        return of_channel and (not self.devices or device in self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    """What is missing in a mirror, as root-relative paths in the order of need.

    `signatures` are of files that are there, with signatures that the new keyrings do not know.
    """

    payload: Sequence[Payload]
    signatures: Sequence[Payload]
    metadata: Mapping[str, Path]
    left_out: Sequence[tuple[str, str]]
    wanted: frozenset[str] = field(repr=False)


def make_plan(tree: Remote, target: Path, wish: Wish, *, check: bool) -> MirrorPlan:
    """Return what a mirror lacks; raises NotFoundError when nothing is asked for."""
    entries = [
        (channel, device)
        for channel, found in sorted(tree.channels.channels.items())
        for device in sorted(found.devices)
    ]
    taken = [each for each in entries if wish.takes(*each)]
    if entries and not taken:
        raise NotFoundError(
            f"'{tree.name}' has nothing of what is asked for",
            hint="it has " + ", ".join(f"'{device}' in '{channel}'" for channel, device in entries),
        )
    indexes = [tree.index(channel, device) for channel, device in taken]
    payload = dict(_payload(indexes))
    found = {
        path: _look_at(target / path[1:], *each, check=check) for path, each in payload.items()
    }
    metadata = {path: copy for each in indexes for path, copy in each.files.items()}
    return MirrorPlan(
        payload=[payload[path] for path in payload if found[path] is _Found.NOTHING],
        signatures=[payload[path] for path in payload if found[path] is _Found.DATA],
        metadata={
            path: copy for path, copy in metadata.items() if not _is_same(copy, target / path[1:])
        },
        left_out=[each for each in entries if not wish.takes(*each)],
        wanted=frozenset([*metadata, *payload, *(f"{path}.asc" for path in payload)]),
    )


def _payload(
    indexes: Sequence[RemoteIndex],
) -> Iterator[tuple[str, Payload]]:
    for each in indexes:
        for image in each.index.images:
            for file in image.files:
                yield file.path, (file, each.chain)


class _Found(Enum):
    """What of a file is there: nothing that is of use, its bytes, or the signature too."""

    NOTHING, DATA, BOTH = range(3)


def _look_at(path: Path, file: ImageFile, chain: trust.Chain, *, check: bool) -> _Found:
    """Tell what a mirror has of a file; with `check`, digest and signature are verified."""
    if not path.is_file() or path.stat().st_size != file.size:
        return _Found.NOTHING
    signature = Path(f"{path}.asc")
    if not check:
        return _Found.BOTH if signature.is_file() else _Found.NOTHING
    if files.sha256_of(path) != file.checksum:
        return _Found.NOTHING
    good = signature.is_file() and trust.is_good(chain, path, signature, level=chain.payload_level)
    return _Found.BOTH if good else _Found.DATA


def _is_same(copy: Path, final: Path) -> bool:
    return final.is_file() and final.read_bytes() == copy.read_bytes()
