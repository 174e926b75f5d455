"""Planning: what will be on the disk, worked out before anything but metadata is downloaded."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from coreimage.errors import DataError, UsageError
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.disk.newdisk import check_output
from coreimage.flasher.disk.plan import plan_layout
from coreimage.flasher.local import LocalPart, find_parts, local_image
from coreimage.flasher.media.card import check_device, read_facts
from coreimage.flasher.media.formats import bmap_path
from coreimage.flasher.oem.find import find_oem
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.options import A_FILE, DEFAULT_SIZE, GIGABYTE, Again, FlashOptions, Medium
from coreimage.flasher.own.app import read_app
from coreimage.flasher.own.machine import NOTHING_OWN, Own
from coreimage.flasher.provision import Access
from coreimage.flasher.remote.connect import Place, connected
from coreimage.flasher.remote.server import Server
from coreimage.flasher.resolve import channel_name
from coreimage.lib import files
from coreimage.lib.progress import Progress
from coreimage.model.index import Image

_OEM = "Determining oem configuration"
_DEVICE = re.compile(r"/pool/device-[^/]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashPlan:
    """What will be on the disk; `download_size` counts the bytes that are not in the cache.

    `local` are parts of this machine. With a root file system among them nothing comes from a
    server: then `server` and `channel` are empty and the image's version is 0. `size` is what was
    asked for, in bytes, before it became a number of sectors.
    """

    output: Path
    server: str
    channel: str
    channel_names: Sequence[str]
    oem: OemPackage
    device: str
    image: Image
    download_size: int
    layout: Layout
    seed: bytes
    access: Access
    own: Own = NOTHING_OWN
    again: Again | None = None
    local: Sequence[LocalPart] = ()
    medium: Medium = A_FILE
    size: int = DEFAULT_SIZE * GIGABYTE

    @property
    def from_channel(self) -> bool:
        """Whether the system is a version of a channel, which can be updated."""
        return bool(self.channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashJob:
    """A plan and what is needed to carry it out."""

    plan: FlashPlan
    server: Server | None
    place: Place
    scratch: Path


@contextmanager
def planned(
    options: FlashOptions, place: Place, *, progress: Progress, now: datetime
) -> Iterator[FlashJob]:
    """Yield what will be done; nothing but metadata was downloaded."""
    size = _disk_size(options)
    if not options.download_only:
        _check_target(options, size)
    if options.local.whole:
        with files.scratch_directory(place.scratch) as scratch:
            yield _planned_locally(options, place, size=size, scratch=scratch, progress=progress)
        return
    channel = channel_name(options.release, options.channel)
    progress.stage(_OEM)
    with connected(place, now=now) as (server, scratch):
        oem = _oem(options, server, progress=progress)
        progress.stage("Fetching information from server...")
        device = options.device or oem.device
        image = server.index(channel, device).full(options.revision)
        local = _parts(options, oem, scratch)
        found = _Found(
            oem=oem,
            device=device,
            image=_without_device(image) if local else image,
            local=local,
            own=_own(options, oem, scratch),
            server=server,
            channel=channel,
        )
        yield _job(options, place, found, size=size, scratch=scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the parts of a disk are, and where they come from."""

    oem: OemPackage
    device: str
    image: Image
    local: Sequence[LocalPart]
    own: Own
    server: Server | None = None
    channel: str = ""


def _planned_locally(
    options: FlashOptions, place: Place, *, size: int, scratch: Path, progress: Progress
) -> FlashJob:
    if options.download_only or options.store is not None:
        raise UsageError(
            "a root file system of this machine needs no server",
            hint="leave out --download-only and --store",
        )
    if options.device is not None:
        raise UsageError(
            "a root file system of this machine is for no device of a channel",
            hint="leave out --device",
        )
    progress.stage(_OEM)
    oem = _oem(options, None, progress=progress)
    local = _parts(options, oem, scratch)
    own = _own(options, oem, scratch)
    found = _Found(oem=oem, device=oem.device, image=local_image(local), local=local, own=own)
    return _job(options, place, found, size=size, scratch=scratch)


def _job(
    options: FlashOptions, place: Place, found: _Found, *, size: int, scratch: Path
) -> FlashJob:
    seed, server = _seed(options, found, size), found.server
    plan = FlashPlan(
        output=options.output,
        server=server.source.name if server else "",
        channel=found.channel,
        channel_names=server.answers_to(found.channel, found.device) if server else (),
        oem=found.oem,
        device=found.device,
        image=found.image,
        download_size=server.source.missing(found.image) if server else 0,
        layout=plan_layout(found.oem, size=size, seed=seed),
        seed=seed,
        access=options.access,
        own=found.own,
        again=options.again,
        local=found.local,
        medium=options.medium,
        size=size,
    )
    return FlashJob(plan=plan, server=server, place=place, scratch=scratch)


def _disk_size(options: FlashOptions) -> int:
    """Return the size of the disk in bytes; raises UsageError for one below the minimum."""
    if options.exact_size is not None:
        return options.exact_size
    if options.size is None and options.medium.card is not None:
        # To the last sector: that is where the second table of a GPT is looked for.
        return read_facts(options.medium.card).size
    size = DEFAULT_SIZE if options.size is None else options.size
    if size < DEFAULT_SIZE:
        raise UsageError(
            f"a disk of {size} GB is too small", hint=f"the minimum is {DEFAULT_SIZE} GB"
        )
    return size * GIGABYTE


def _check_target(options: FlashOptions, size: int) -> None:
    if options.medium.card is None:
        check_output(options.output)
        if options.medium.bmap:
            check_output(bmap_path(options.output))
        return
    facts = read_facts(options.medium.card)
    check_device(facts, needed=size, accepted=options.medium.accepted)


def _oem(options: FlashOptions, server: Server | None, *, progress: Progress) -> OemPackage:
    return find_oem(
        options.oem,
        folders=options.oem_folders,
        server=server,
        store=options.store,
        progress=progress,
    )


def _parts(options: FlashOptions, oem: OemPackage, scratch: Path) -> list[LocalPart]:
    if options.local.nothing:
        return []
    arch = oem.info.oem.hardware.architecture
    return find_parts(options.local, arch=arch, scratch=scratch)


def _own(options: FlashOptions, oem: OemPackage, scratch: Path) -> Own:
    """Return what the machine has of its own, with the packages that are installed."""
    arch = oem.info.oem.hardware.architecture
    apps = [
        read_app(path, arch=arch, scratch=scratch / f"app-{number}")
        for number, path in enumerate(options.install)
    ]
    names = [app.info.name for app in apps]
    if double := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"package '{double[0]}' is to be installed twice", hint="name it once")
    return replace(options.own, apps=[*options.own.apps, *apps])


def _without_device(image: Image) -> Image:
    """Return an image without the file that a device part of this machine stands in for."""
    rest = [file for file in image.files if not _DEVICE.match(file.path)]
    if len(rest) != len(image.files) - 1:
        raise DataError(
            f"image {image.version} has no device part that could be replaced",
            hint="name a root file system of this machine too, with --rootfs",
        )
    return replace(image, files=rest)


def _seed(options: FlashOptions, found: _Found, size: int) -> bytes:
    """Return what all identifiers on the disk are derived from."""
    if options.again is not None and options.again.seed:
        return options.again.seed
    document = {
        "channel": found.channel,
        "files": [file.checksum for file in found.image.files],
        "oem": found.oem.digest,
        "size": size // GIGABYTE if size % GIGABYTE == 0 else size,
        "access": options.access.files(),
        **({"local": [part.sha256 for part in found.local]} if found.local else {}),
        **({} if found.own.nothing else {"own": found.own.facts()}),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
