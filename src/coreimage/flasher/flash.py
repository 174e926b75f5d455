"""Flashing: plan what will be on the disk, then make it.

Everything is verified before any of it is used. The bytes follow from the image, the OEM package
and the options alone: no clock, no randomness, no name of the machine.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from coreimage.errors import DataError, UsageError
from coreimage.flasher import download
from coreimage.flasher.disk.assemble import assemble, check_output
from coreimage.flasher.disk.content import DiskContent, DiskParts, make_parts
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.disk.plan import plan_layout
from coreimage.flasher.gather import Gathering, gathered
from coreimage.flasher.local import (
    NOTHING_LOCAL,
    Kind,
    LocalPart,
    LocalWish,
    find_parts,
    local_image,
    opened,
)
from coreimage.flasher.media.bmap import bmap_text
from coreimage.flasher.media.card import check_device, read_facts, write_card
from coreimage.flasher.media.formats import PLAIN, Form, bmap_path, deliver
from coreimage.flasher.media.ranges import required_ranges
from coreimage.flasher.oem.find import find_oem
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.own.app import read_app
from coreimage.flasher.own.machine import NOTHING_OWN, Own, check_support
from coreimage.flasher.provision import NO_ACCESS, Access
from coreimage.flasher.resolve import channel_name, check_purpose
from coreimage.flasher.server import Memory, Server, open_server
from coreimage.flasher.tree.slot import VersionPart, newest_time, read_version, unpack_image
from coreimage.lib import files
from coreimage.lib.memory import default_directory
from coreimage.lib.progress import Progress
from coreimage.lib.transport import PATIENT, Limits, tls_context
from coreimage.model.index import Image

GIGABYTE = 10**9
_DEVICE = re.compile(r"/pool/device-[^/]*\Z")
DEFAULT_SIZE = 4
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the image comes from, whom we trust, and where we may work.

    `servers` are URLs or paths of channel trees, and all serve the same one; one is enough. The
    first where nothing is wrong is believed. `archive_master` is the pinned keyring tarball.
    `cache` keeps downloads, `scratch` is the folder for what is removed again. `memory` is where
    it is remembered which states of the server were seen; `allow_unfresh` accepts a server that
    does not say how fresh it is.
    """

    servers: Sequence[str]
    archive_master: Path
    cache: Path
    scratch: Path
    verify_tls: bool = True
    limits: Limits = PATIENT
    memory: Path = field(default_factory=default_directory)
    allow_unfresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What the disk becomes: a file of some form, with a block map beside it, or a card.

    A `card` is written over as far as `accepted` and what is known of it allow.
    """

    form: Form = PLAIN
    bmap: bool = False
    card: Path | None = None
    accepted: bool = False


A_FILE = Medium()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOptions:
    """What a person asks for; `size` is in GB of 10^9 bytes, `revision` as in Index.full.

    Without a size it is the smallest, or that of the card which is written; `exact_size`, in
    bytes, is taken before both. `install` are packages that `own` does not have yet. With `seed`,
    identifiers are derived from that of another disk, to make the same one again.
    """

    release: str
    channel: str
    output: Path
    oem: str
    oem_folders: Sequence[Path]
    store: str | None = None
    size: int | None = None
    exact_size: int | None = None
    revision: int | None = None
    access: Access = NO_ACCESS
    download_only: bool = False
    local: LocalWish = NOTHING_LOCAL
    medium: Medium = A_FILE
    install: Sequence[Path] = ()
    own: Own = NOTHING_OWN
    seed: bytes | None = None


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
    image: Image
    download_size: int
    layout: Layout
    seed: bytes
    access: Access
    own: Own = NOTHING_OWN
    local: Sequence[LocalPart] = ()
    medium: Medium = A_FILE
    size: int = DEFAULT_SIZE * GIGABYTE

    @property
    def from_channel(self) -> bool:
        """Whether the system is a version of a channel, which can be updated."""
        return bool(self.channel)

    @property
    def device(self) -> str:
        """The device of the channel."""
        return self.oem.device


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashJob:
    """A plan and what is needed to carry it out."""

    plan: FlashPlan
    server: Server | None
    place: Place
    scratch: Path


@contextmanager
def connected(place: Place, *, now: datetime) -> Iterator[tuple[Server, Path]]:
    """Yield a verified server and a scratch directory that lives as long."""
    with files.scratch_directory(place.scratch) as scratch:
        metadata = scratch / "metadata"
        metadata.mkdir()
        source = download.open_source(
            place.servers,
            scratch=metadata,
            cache=place.cache,
            tls=tls_context(verify=place.verify_tls),
            limits=place.limits,
        )
        server = open_server(
            source,
            archive_master=place.archive_master,
            scratch=scratch,
            memory_of=Memory(directory=place.memory, clock=now, allow_unfresh=place.allow_unfresh),
        )
        yield server, scratch


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
            yield _planned_locally(options, place, scratch=scratch, progress=progress)
        return
    channel = channel_name(options.release, options.channel)
    progress.stage("Fetching information from server...")
    with connected(place, now=now) as (server, scratch):
        oem = _oem(options, server, progress=progress)
        image = server.index(channel, oem.device).full(options.revision)
        local = _parts(options, oem, scratch)
        if local:
            image = _without_device(image)
        own = _own(options, oem, scratch)
        seed = options.seed or _seed(options, oem, channel, image, local, own)
        plan = FlashPlan(
            output=options.output,
            server=server.source.name,
            channel=channel,
            channel_names=server.answers_to(channel, oem.device),
            oem=oem,
            image=image,
            download_size=server.source.missing(image),
            layout=plan_layout(oem, size=_disk_size(options), seed=seed),
            seed=seed,
            access=options.access,
            own=own,
            local=local,
            medium=options.medium,
            size=_disk_size(options),
        )
        yield FlashJob(plan=plan, server=server, place=place, scratch=scratch)


def _disk_size(options: FlashOptions) -> int:
    """Return the size of the disk in bytes; raises UsageError for one below the minimum."""
    if options.exact_size is not None:
        return options.exact_size
    if options.size is None and options.medium.card is not None:
        # Whole MiB: what is left of the last one is nobody's.
        return read_facts(options.medium.card).size // _MIB * _MIB
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


def _planned_locally(
    options: FlashOptions, place: Place, *, scratch: Path, progress: Progress
) -> FlashJob:
    if options.download_only or options.store is not None:
        raise UsageError(
            "a root file system of this machine needs no server",
            hint="leave out --download-only and --store",
        )
    oem = _oem(options, None, progress=progress)
    local = _parts(options, oem, scratch)
    image = local_image(local)
    own = _own(options, oem, scratch)
    seed = options.seed or _seed(options, oem, "", image, local, own)
    plan = FlashPlan(
        output=options.output,
        server="",
        channel="",
        channel_names=(),
        oem=oem,
        image=image,
        download_size=0,
        layout=plan_layout(oem, size=_disk_size(options), seed=seed),
        seed=seed,
        access=options.access,
        own=own,
        local=local,
        medium=options.medium,
        size=_disk_size(options),
    )
    return FlashJob(plan=plan, server=None, place=place, scratch=scratch)


def _oem(options: FlashOptions, server: Server | None, *, progress: Progress) -> OemPackage:
    progress.stage("Determining oem configuration")
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


def _seed(
    options: FlashOptions,
    oem: OemPackage,
    channel: str,
    image: Image,
    local: Sequence[LocalPart],
    own: Own,
) -> bytes:
    """Return what all identifiers on the disk are derived from."""
    size = _disk_size(options)
    document = {
        "channel": channel,
        "files": [file.checksum for file in image.files],
        "oem": oem.digest,
        "size": size // GIGABYTE if size % GIGABYTE == 0 else size,
        "access": options.access.files(),
        **({"local": [part.sha256 for part in local]} if local else {}),
        **({} if own.nothing else {"own": own.facts()}),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """All files in the order of applying: those of the server, then those of this machine.

    The version, last of a server's files, stays last.
    """

    gathering: Gathering | None
    local: Sequence[download.Payload]

    def __iter__(self) -> Iterator[download.Payload]:
        if self.gathering is None:
            yield from self.local
            return
        *first, last = range(len(self.gathering.entries))
        for number in first:
            yield self.gathering.wait(number)
        yield from self.local
        yield self.gathering.wait(last)

    def version(self) -> download.Payload:
        """Return the file that says what the image is for."""
        assert self.gathering is not None  # noqa: S101  images of a channel come from a server
        return self.gathering.wait(len(self.gathering.entries) - 1)


@contextmanager
def _gathered(job: FlashJob, progress: Progress) -> Iterator[_Files]:
    progress.stage("Downloading and setting up...")
    image = job.plan.image
    if job.plan.download_size:
        files.require_space(job.place.cache, job.plan.download_size, purpose="the downloads")
    with ExitStack() as stack:
        local = stack.enter_context(opened(job.plan.local))
        gathering = None
        if job.server is not None:
            server = job.server
            gathering = stack.enter_context(gathered(server.source, image, server.chain, progress))
        yield _Files(gathering=gathering, local=local)


def fetch_only(job: FlashJob, *, progress: Progress) -> int:
    """Download and verify the image, make nothing of it, and return its size in bytes."""
    with _gathered(job, progress) as found:
        _version(job.plan, found.version())
        return sum(payload.entry.size for payload in found)


def _version(plan: FlashPlan, payload: download.Payload) -> VersionPart:
    """Return what the image says of itself, once that is what was asked for; TrustError else."""
    version = read_version(payload)
    payload.file.seek(0)
    check_purpose(
        version.channel_ini,
        version=plan.image.version,
        channels=plan.channel_names,
        device=plan.device,
    )
    return version


def flash(job: FlashJob, *, progress: Progress) -> None:
    """Make the disk image at the plan's output; raises whatever is wrong, and leaves nothing."""
    _put(job, make_disk(job, progress=progress), progress)


def make_disk(job: FlashJob, *, progress: Progress) -> DiskParts:
    """Make all parts of the disk below the job's scratch directory, and put them nowhere."""
    plan = job.plan
    plain = {part.entry.path for part in plan.local if part.kind is Kind.ROOTFS}
    with _gathered(job, progress) as found:
        version = _version(plan, found.version()) if plan.from_channel else None
        slot = unpack_image(
            found, total=_total(plan), scratch=job.scratch, progress=progress, plain=plain
        )
    slot.check(plan.oem)
    check_support(plan.own, plan.access, slot.system)
    if version is None:
        slot.system.put_file("etc/ubuntu-build", b"0\n")
    time = newest_time(slot.system) if version is None else version.time
    progress.stage(f"Installing {plan.oem.info.name}")
    content = DiskContent(
        system=slot.system,
        boot_files=slot.boot_files(),
        oem=plan.oem,
        access=plan.access,
        own=plan.own,
        install_yaml=install_yaml(plan, time),
        time=time,
    )
    return make_parts(
        content, layout=plan.layout, seed=plan.seed, scratch=job.scratch, progress=progress
    )


def _total(plan: FlashPlan) -> int:
    local = sum(part.size for part in plan.local) if plan.from_channel else 0
    return plan.image.size + local


def _put(job: FlashJob, parts: DiskParts, progress: Progress) -> None:
    """Assemble the disk and make of it what was asked for."""
    plan, medium = job.plan, job.plan.medium
    plain = medium.card is None and medium.form.plain
    raw = plan.output if plain else job.scratch / "disk.img"
    assemble(plan.layout, images=parts.images, pieces=parts.pieces, output=raw, progress=progress)
    if medium.card is None and not plain:
        deliver(raw, plan.output, medium.form, progress=progress)
    if medium.card is None and not medium.bmap:
        return
    ranges = required_ranges(raw, plan.layout, filled=parts.images, pieces=parts.pieces)
    if medium.card is None:
        files.write_atomically(bmap_path(plan.output), bmap_text(raw, ranges))
    else:
        write_card(raw, medium.card, ranges, exclusive=not medium.accepted, progress=progress)


def size_text(size: int) -> str:
    """Return a size in bytes as install.yaml has it; `size_of` reads it."""
    return f"{size} bytes" if size % GIGABYTE else f"{size // GIGABYTE} GB"


def size_of(text: str) -> int:
    """Return the bytes of what `size_text` wrote; raises ValueError."""
    number, _, unit = text.partition(" ")
    return int(number) * {"bytes": 1, "GB": GIGABYTE}[unit] if unit in {"bytes", "GB"} else int("")


def install_yaml(plan: FlashPlan, time: int) -> str:
    """Return the record of what was installed: tool, options, channel, version, time."""
    fields = {
        "tool": "coreimage",
        "channel": plan.channel,
        "device": plan.device,
        "version": plan.image.version,
        "oem": f"{plan.oem.info.name} {plan.oem.info.version}",
        "size": size_text(plan.size),
        "ssh": plan.access.ssh,
        "developer-mode": plan.access.developer_mode,
        "time": datetime.fromtimestamp(time, UTC).strftime("%FT%TZ"),
    }
    if not plan.own.nothing or plan.access.others:
        # What the identifiers were derived from cannot be read back from such a disk.
        fields["packages"] = [app.label for app in plan.own.apps]
        fields["seed"] = plan.seed.hex()
    # Every JSON text is YAML too: quoting is JSON's.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items())
