"""Flashing: from a plan to a disk.

Everything is verified before any of it is used. The bytes follow from the image, the OEM package
and the options alone: no clock, no randomness, no name of the machine.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.flasher.disk.content import DiskContent, DiskParts, fill
from coreimage.flasher.disk.newdisk import NewDisk, new_disk
from coreimage.flasher.local import Kind, opened
from coreimage.flasher.media.bmap import bmap_text
from coreimage.flasher.media.card import write_card
from coreimage.flasher.media.formats import bmap_path, deliver
from coreimage.flasher.media.ranges import required_ranges
from coreimage.flasher.own.machine import check_support
from coreimage.flasher.plan import FlashJob, FlashPlan
from coreimage.flasher.record import record_of
from coreimage.flasher.remote.gather import Gathering, gathered
from coreimage.flasher.remote.source import Payload
from coreimage.flasher.resolve import check_purpose
from coreimage.flasher.tree.room import made_in_room
from coreimage.flasher.tree.slot import (
    Slot,
    VersionPart,
    newest_time,
    read_version,
    unpack_image,
)
from coreimage.lib import files
from coreimage.lib.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """All files in the order of applying: those of the server, then those of this machine.

    The version, last of a server's files, stays last.
    """

    gathering: Gathering | None
    local: Sequence[Payload]

    def __iter__(self) -> Iterator[Payload]:
        if self.gathering is None:
            yield from self.local
            return
        *first, last = range(len(self.gathering.entries))
        for number in first:
            yield self.gathering.wait(number)
        yield from self.local
        yield self.gathering.wait(last)

    def version(self) -> Payload:
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


def _version(plan: FlashPlan, payload: Payload) -> VersionPart:
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
    plan, medium = job.plan, job.plan.medium
    plain = medium.card is None and medium.form.plain
    raw = plan.output if plain else job.scratch / "disk.img"
    with new_disk(raw, size=plan.layout.size) as disk:
        parts = make_disk(job, disk, progress=progress)
    if medium.card is None and not plain:
        deliver(raw, plan.output, medium.form, progress=progress)
    if medium.card is None and not medium.bmap:
        return
    ranges = required_ranges(raw, plan.layout, filled=parts.filled, pieces=parts.pieces)
    if medium.card is None:
        files.write_atomically(bmap_path(plan.output), bmap_text(raw, ranges))
    else:
        write_card(raw, medium.card, ranges, exclusive=not medium.accepted, progress=progress)


def make_disk(job: FlashJob, disk: NewDisk, *, progress: Progress) -> DiskParts:
    """Fill a new disk, of the size of the plan's layout, with what is planned."""
    plan = job.plan
    with ExitStack() as stack:
        with _gathered(job, progress) as found:
            version = _version(plan, found.version()) if plan.from_channel else None
            unpacked = made_in_room(
                lambda room: _unpack(plan, found, room, progress),
                _total(plan),
                scratch=job.scratch,
                progress=progress,
            )
            slot = stack.enter_context(unpacked)
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
            install_yaml=record_of(plan, time=time).to_yaml(),
            time=time,
        )
        return fill(
            disk,
            content,
            layout=plan.layout,
            seed=plan.seed,
            scratch=job.scratch,
            progress=progress,
        )


def _unpack(plan: FlashPlan, found: _Files, room: Path, progress: Progress) -> Slot:
    plain = {part.entry.path for part in plan.local if part.kind is Kind.ROOTFS}
    return unpack_image(found, total=_total(plan), scratch=room, progress=progress, plain=plain)


def _total(plan: FlashPlan) -> int:
    local = sum(part.size for part in plan.local) if plan.from_channel else 0
    return plan.image.size + local
