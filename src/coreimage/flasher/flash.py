"""Flashing: plan what will be on the disk, then make it.

Everything is verified before any of it is used. The bytes follow from the image, the OEM package
and the options alone: no clock, no randomness, no name of the machine.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from coreimage.errors import UsageError
from coreimage.flasher import download
from coreimage.flasher.assemble import assemble, check_output
from coreimage.flasher.disk import DiskContent, make_images
from coreimage.flasher.layout import Layout, ab_grub_layout
from coreimage.flasher.oem import OemPackage, find_oem, load_oem
from coreimage.flasher.provision import NO_ACCESS, Access
from coreimage.flasher.resolve import channel_name, check_purpose
from coreimage.flasher.server import Memory, Server, open_server
from coreimage.flasher.slot import VersionPart, read_version, unpack_image
from coreimage.lib import files
from coreimage.lib.memory import default_directory
from coreimage.lib.progress import Progress
from coreimage.lib.transport import PATIENT, Limits, tls_context
from coreimage.model.index import Image

GIGABYTE = 10**9
DEFAULT_SIZE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the image comes from, whom we trust, and where we may work.

    `server` is a URL or the path of a channel tree; `archive_master` the pinned keyring tarball.
    `cache` keeps downloads, `scratch` is the folder for what is removed again. `memory` is where
    it is remembered which states of the server were seen; `allow_unfresh` accepts a server that
    does not say how fresh it is.
    """

    server: str
    archive_master: Path
    cache: Path
    scratch: Path
    verify_tls: bool = True
    limits: Limits = PATIENT
    memory: Path = field(default_factory=default_directory)
    allow_unfresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOptions:
    """What a person asks for; `size` is in GB of 10^9 bytes, `revision` as in Index.full."""

    release: str
    channel: str
    output: Path
    oem: str
    oem_folders: Sequence[Path]
    size: int = DEFAULT_SIZE
    revision: int | None = None
    access: Access = NO_ACCESS
    download_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashPlan:
    """What will be on the disk; `download_size` counts the bytes that are not in the cache."""

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

    @property
    def device(self) -> str:
        """The device of the channel."""
        return self.oem.device


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashJob:
    """A plan and what is needed to carry it out."""

    plan: FlashPlan
    server: Server
    place: Place
    scratch: Path


@contextmanager
def connected(place: Place, *, now: datetime) -> Iterator[tuple[Server, Path]]:
    """Yield a verified server and a scratch directory that lives as long."""
    with files.scratch_directory(place.scratch) as scratch:
        metadata = scratch / "metadata"
        metadata.mkdir()
        source = download.open_source(
            place.server,
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
    if not options.download_only:
        check_output(options.output)
    progress.stage("Determining oem configuration")
    oem = load_oem(find_oem(options.oem, folders=options.oem_folders))
    channel = channel_name(options.release, options.channel)
    if options.size < DEFAULT_SIZE:
        raise UsageError(
            f"a disk of {options.size} GB is too small", hint=f"the minimum is {DEFAULT_SIZE} GB"
        )
    progress.stage("Fetching information from server...")
    with connected(place, now=now) as (server, scratch):
        index = server.index(channel, oem.device)
        image = index.full(options.revision)
        seed = _seed(options, oem, channel, image)
        plan = FlashPlan(
            output=options.output,
            server=server.source.name,
            channel=channel,
            channel_names=server.answers_to(channel, oem.device),
            oem=oem,
            image=image,
            download_size=server.source.missing(image),
            layout=ab_grub_layout(size=options.size * GIGABYTE, seed=seed),
            seed=seed,
            access=options.access,
        )
        yield FlashJob(plan=plan, server=server, place=place, scratch=scratch)


def _seed(options: FlashOptions, oem: OemPackage, channel: str, image: Image) -> bytes:
    """Return what all identifiers on the disk are derived from."""
    document = {
        "channel": channel,
        "files": [file.checksum for file in image.files],
        "oem": oem.digest,
        "size": options.size,
        "access": options.access.files(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()


@contextmanager
def _downloaded(job: FlashJob, progress: Progress) -> Iterator[Sequence[download.Payload]]:
    progress.stage("Downloading and setting up...")
    image = job.plan.image
    if job.plan.download_size:
        files.require_space(job.place.cache, job.plan.download_size, purpose="the downloads")
    with download.collected(job.server.source, image, job.server.chain, progress) as payloads:
        yield payloads


def fetch_only(job: FlashJob, *, progress: Progress) -> int:
    """Download and verify the image, make nothing of it, and return its size in bytes."""
    with _downloaded(job, progress) as payloads:
        _version(job.plan, payloads)
        return sum(payload.entry.size for payload in payloads)


def _version(plan: FlashPlan, payloads: Sequence[download.Payload]) -> VersionPart:
    """Return what the image says of itself, once that is what was asked for; TrustError else."""
    version = read_version(payloads[-1])
    check_purpose(
        version.channel_ini,
        version=plan.image.version,
        channels=plan.channel_names,
        device=plan.device,
    )
    return version


def flash(job: FlashJob, *, progress: Progress) -> None:
    """Make the disk image at the plan's output; raises whatever is wrong, and leaves nothing."""
    plan = job.plan
    with _downloaded(job, progress) as payloads:
        version = _version(plan, payloads)
        slot = unpack_image(payloads, scratch=job.scratch, progress=progress)
    slot.check(plan.oem)
    progress.stage(f"Installing {plan.oem.info.name}")
    content = DiskContent(
        system=slot.system,
        boot_files={**slot.boot_files(), **plan.oem.boot_files()},
        oem=plan.oem,
        access=plan.access,
        install_yaml=install_yaml(plan, version.time),
        time=version.time,
    )
    images, boot = make_images(
        content, layout=plan.layout, seed=plan.seed, scratch=job.scratch, progress=progress
    )
    assemble(plan.layout, images=images, boot=boot, output=plan.output, progress=progress)


def install_yaml(plan: FlashPlan, time: int) -> str:
    """Return the record of what was installed: tool, options, channel, version, time."""
    fields = {
        "tool": "coreimage",
        "channel": plan.channel,
        "device": plan.device,
        "version": plan.image.version,
        "oem": f"{plan.oem.info.name} {plan.oem.info.version}",
        "size": f"{plan.layout.size // GIGABYTE} GB",
        "ssh": plan.access.ssh,
        "developer-mode": plan.access.developer_mode,
        "time": datetime.fromtimestamp(time, UTC).strftime("%FT%TZ"),
    }
    # Every JSON text is YAML too: quoting is JSON's.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items())
