"""Upgrades: which images lead a device from its build to a newer one, and why these.

Two ways to choose: ours, and that of clients in the field, which differ where theirs has defects.
Source of theirs: wiki.ubuntu.com/ImageBasedUpgrades/Client, "Upgrade path"; the scores and the draw
as system-image 3 makes them.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coreimage.model.index import Image, Index

_MIB = 1 << 20
_REBOOT = 100
_BEHIND = 9001
_ALL = 100
# An index with many bases for each delta has more paths than anybody wants to look at.
_MOST_PATHS = 10_000
# A full image is smaller than so many deltas, and memory has an end.
_LONGEST_PATH = 100


class Client(StrEnum):
    """Whose way of choosing is meant: that of our programs, or of system-image clients."""

    OURS = "ours"
    OLD = "old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A path to a newer image. The lowest score wins; `excluded` says why it cannot."""

    images: Sequence[Image]
    score: int = 0
    excluded: str = ""

    @property
    def version(self) -> int:
        """The version that it ends at."""
        return self.images[-1].version

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(image.size for image in self.images)

    @property
    def reboots(self) -> int:
        """How many of its images ask for a reboot of their own."""
        return sum(image.bootme for image in self.images)

    @property
    def first_leg(self) -> Sequence[Image]:
        """The images to install now: up to the first that asks for a reboot."""
        for position, image in enumerate(self.images, start=1):
            if image.bootme:
                return self.images[:position]
        return self.images

    def __str__(self) -> str:
        """Show the path as people write it: 1:2 is a full image 1 and the delta to 2."""
        return ":".join(str(image.version) for image in self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All paths, the best first, and the images that are on none of them with the reason.

    `draws` are the device's numbers in the phases of versions.
    """

    candidates: Sequence[Candidate]
    unreachable: Sequence[tuple[Image, str]]
    draws: Mapping[int, int]

    @property
    def chosen(self) -> Candidate | None:
        """The path that is taken, if there is one."""
        return next((each for each in self.candidates if not each.excluded), None)


def decide(
    index: Index,
    *,
    build: int,
    client: Client = Client.OURS,
    channel: str = "",
    target: str | None = None,
    machine_id: str | None = None,
) -> Decision:
    """Return the path that a device at `build` takes through an index.

    `channel` is the device's own and `target` the one that it follows, if any; both decide the draw
    of a phase. Without a machine id, an image that is offered to some is taken as offered.
    """
    device = _Device(client=client, channel=channel, target=target, machine_id=machine_id)
    paths = list(_paths(index, build) if client is Client.OLD else _best_paths(index, build))
    highest = max((path[-1].version for path in paths), default=0)
    draws = {path[-1].version: device.draw(path[-1].version, highest) for path in paths}
    candidates = [
        Candidate(images=path, score=score, excluded=device.excludes(path, draws[path[-1].version]))
        for path, score in zip(paths, _scores(paths), strict=True)
    ]
    reached = {id(image) for path in paths for image in path}
    return Decision(
        candidates=sorted(candidates, key=lambda each: _order(each, client)),
        unreachable=[
            (image, _why_no_start(image, build, client))
            for image in index.images
            if id(image) not in reached
        ],
        draws={version: draw for version, draw in sorted(draws.items()) if draw is not None},
    )


def share_position(channel: str, version: int, machine_id: str) -> int:
    """Return a device's place in the phase of an image, 0 to 99; it is in when that is below the %.

    It is the same whatever the percentage, so raising that drops nobody; and drawn anew for each
    image, so that it is not always the same devices that go first.
    """
    digest = hashlib.sha256(f"{channel}\0{version}\0{machine_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % _ALL


def old_draw(target: str | None, highest: int, machine_id: str) -> int:
    """Return the number that system-image clients draw, 0 to 100; in when that is not above the %.

    101 numbers and "not above" let 1 % reach two of 101 devices. All channels that follow no other
    share the draw.
    """
    return random.Random(f"{target}.{highest}.{machine_id}").randint(0, _ALL)  # noqa: S311


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """Who asks."""

    client: Client
    channel: str
    target: str | None
    machine_id: str | None

    def draw(self, version: int, highest: int) -> int | None:
        if self.machine_id is None:
            return None
        if self.client is Client.OLD:
            return old_draw(self.target, highest, self.machine_id)
        return share_position(self.channel, version, self.machine_id)

    def excludes(self, path: Sequence[Image], draw: int | None) -> str:
        """Return why a path is not offered, or nothing; phases are those of its last image."""
        if self.client is Client.OURS:
            # Images on the way are no matter, as long as the device does not start them.
            for image in path:
                if image.withdrawn is not None and (image.bootme or image is path[-1]):
                    return f"version {image.version} is withdrawn: {image.withdrawn}"
        version, percentage = path[-1].version, path[-1].percentage
        if percentage == 0:
            return f"version {version} is offered to nobody"
        highest_draw = percentage if self.client is Client.OLD else percentage - 1
        if draw is None or draw <= highest_draw:
            return ""
        return f"version {version} is offered to {percentage} %, the device drew {draw}"


def _paths(index: Index, build: int) -> Iterator[tuple[Image, ...]]:
    """Yield paths as old clients see them: every one goes on while there is a further delta."""
    deltas: dict[int, list[Image]] = {}
    for image in index.images:
        if image.base is not None and image.base < image.version:
            deltas.setdefault(image.base, []).append(image)
    fulls = [image for image in index.images if not _why_no_start(image, build, Client.OLD)]
    pending: list[tuple[Image, ...]] = [
        (image,) for image in reversed([*fulls, *deltas.get(build, ())])
    ]
    yielded = 0
    while pending and yielded < _MOST_PATHS:
        path = pending.pop()
        further = deltas.get(path[-1].version, ())
        if further:
            pending += [(*path, image) for image in reversed(further)]
        else:
            yielded += 1
            yield path


def _best_paths(index: Index, build: int) -> Iterator[tuple[Image, ...]]:
    """Yield, for every image that can be reached, the cheapest path that ends with it.

    Versions only grow along a path, so each is looked at once, however many paths there are.
    """
    best: dict[int, tuple[Image, ...]] = {build: ()}
    for image in sorted(index.images, key=lambda each: each.version):
        before: tuple[Image, ...] | None
        if image.base is None:
            before = None if _why_no_start(image, build, Client.OURS) else ()
        else:
            before = best.get(image.base) if image.base < image.version else None
        if before is not None and len(before) < _LONGEST_PATH:
            path = (*before, image)
            known = best.get(image.version)
            if known is None or _cost(path) < _cost(known):
                best[image.version] = path
            yield path


def _why_no_start(image: Image, build: int, client: Client) -> str:
    """Return why a device at `build` cannot install an image as it is."""
    if image.version <= build:
        return f"version {image.version} is not newer than build {build}"
    if image.base is not None and image.base != build:
        return f"it is a delta from {image.base}, to which nothing leads"
    if client is Client.OLD and image.kept_from_old_clients:
        return f"its minversion is {image.version}: it is kept from clients that put deltas on it"
    if (image.minversion or 0) > build:
        return f"it is for builds from {image.minversion}"
    return ""


def _scores(paths: Sequence[Sequence[Image]]) -> list[int]:
    """Return the scores of paths: reboots, whole MiB above the smallest, versions left behind."""
    sizes = [sum(image.size for image in path) for path in paths]
    smallest = min(sizes, default=0)
    highest = max((path[-1].version for path in paths), default=0)
    return [
        _REBOOT * sum(image.bootme for image in path)
        + (size - smallest) // _MIB
        + _BEHIND * (highest - path[-1].version)
        for path, size in zip(paths, sizes, strict=True)
    ]


def _cost(path: Sequence[Image]) -> int:
    """Return what a path costs, in bytes: a reboot counts as much as 100 MiB."""
    return sum(image.size + _REBOOT * _MIB * image.bootme for image in path)


def _order(candidate: Candidate, client: Client) -> tuple[int, int]:
    """Return what candidates are sorted by; old clients take the first found of equal scores."""
    return candidate.score, 0 if client is Client.OLD else _cost(candidate.images)
