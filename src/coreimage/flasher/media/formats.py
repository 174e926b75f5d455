"""Formats of disk images: raw, compressed raw, and those of virtual machines."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreimage.errors import UsageError
from coreimage.flasher.disk.newdisk import check_output, give_name
from coreimage.lib import compress, files, run
from coreimage.lib.progress import Progress

_LEVELS = {"zst": 3, "xz": 1}


class Format(StrEnum):
    """The formats of disk images, in QEMU's words."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How an image is stored: its format, and `zst` or `xz` when a raw one is compressed."""

    format: Format = Format.RAW
    compression: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is the raw disk itself."""
        return self.format is Format.RAW and not self.compression


PLAIN = Form()


def form_of(output: Path, wanted: Format | None) -> Form:
    """Return the form that a name asks for, unless a format is named.

    Raises UsageError for a compressed file of another format than raw.
    """
    suffix = output.suffix.removeprefix(".")
    compression = suffix if suffix in _LEVELS else ""
    named = Format(suffix) if suffix in set(Format) else Format.RAW
    if compression and wanted not in (None, Format.RAW):
        raise UsageError(
            f"'{output}' would be a compressed {wanted}",
            hint="only raw images are compressed: leave out --format, or the suffix",
        )
    return Form(format=wanted or named, compression=compression)


def bmap_path(output: Path) -> Path:
    """Return where the block map of an image lies: beside it, named after the raw disk."""
    raw = output.with_suffix("") if output.suffix.removeprefix(".") in _LEVELS else output
    return raw.with_name(f"{raw.name}.bmap")


def deliver(raw: Path, output: Path, form: Form, *, progress: Progress) -> None:
    """Make the new file `output` of a raw disk; nothing is there until it is whole.

    Raises CoreImageError when something is at `output`.
    """
    check_output(output)
    with files.scratch_directory(output.absolute().parent) as scratch:
        made = scratch / output.name
        title = f"compressing with {form.compression}" if form.compression else "converting"
        with progress.task(title, 1, unit="steps") as task:
            if form.compression:
                _compress(raw, made, form.compression)
            else:
                run.run(["qemu-img", "convert", "-f", "raw", "-O", form.format.value, raw, made])
            task.advance(1)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        give_name(str(made), output)


def _compress(raw: Path, made: Path, kind: str) -> None:
    with made.open("xb") as target, raw.open("rb") as source:
        argv = compress.compressor(kind, _LEVELS[kind])
        run.run(argv, stdin=source, stdout=target, env=compress.NO_OPTIONS)


@contextmanager
def as_raw(disk: Path, *, scratch: Path) -> Iterator[Path]:
    """Yield the raw disk that an image holds: itself, or a sparse copy below `scratch`."""
    with disk.open("rb") as file:
        head = file.read(8)
    kind = compress.kind_of(head)
    if kind is not None:
        raw = scratch / "disk.img"
        with compress.opened(disk) as stream, raw.open("xb") as target:
            size, zeros = 0, bytes(files.CHUNK)
            while chunk := stream.read(files.CHUNK):
                if chunk != zeros[: len(chunk)]:
                    target.seek(size)
                    target.write(chunk)
                size += len(chunk)
            target.truncate(size)
        yield raw
    elif head.startswith((b"QFI\xfb", b"KDMV", b"vhdxfile")):
        raw = scratch / "disk.img"
        run.run(["qemu-img", "convert", "-O", "raw", disk, raw])
        yield raw
    else:
        yield disk
