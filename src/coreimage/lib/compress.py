"""Compressed streams: gzip, xz and zstd on both cores, constant memory, always the same bytes.

Worker counts never change the output: every tool is run in its multi-threaded mode, whose
blocks depend on the level alone. Nor do options that a user's environment gives these tools.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from coreimage.errors import DataError
from coreimage.lib import run

_MAGIC = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
NO_OPTIONS = dict.fromkeys(("GZIP", "PIGZ", "XZ_DEFAULTS", "XZ_OPT"), "")


# What xz takes, in MiB: for each thread at each level (xz(1), "Presets": memory of the encoder, and
# a block of input and of output, three times the dictionary each), and at most for all of them.
_XZ_THREAD = (9, 15, 29, 56, 72, 142, 142, 282, 562, 1058)
_XZ_MEMORY = 300


def _threads() -> int:
    return max(2, len(os.sched_getaffinity(0)))


def _xz_threads(level: int) -> int:
    """Return for how many threads there is memory, two at least: with one, other bytes come out."""
    return max(2, min(_threads(), _XZ_MEMORY // _XZ_THREAD[level]))


def compressor(kind: str, level: int) -> list[str]:
    """Return the argv of a filter that compresses; kind is gz, xz or zst."""
    threads = _threads()
    table = {
        "gz": ["pigz", f"-{level}", "--no-name", "--no-time", "--processes", str(threads)],
        # CRC32 is the one check that the small xz readers of recovery systems have.
        "xz": ["xz", f"-{level}", "--check=crc32", f"--threads={_xz_threads(level)}", "--stdout"],
        "zst": ["zstd", f"-{level}", "--quiet", f"-T{threads}", "--stdout"],
    }
    return table[kind]


def decompressor(kind: str) -> list[str]:
    """Return the argv of a filter that decompresses; kind is gz, xz or zst."""
    table = {
        "gz": ["pigz", "--decompress", "--stdout"],
        # Large blocks are unpacked one after the other, and what asks for more is refused: level 9
        # of xz takes 65 MiB, a hostile header could take 4 GiB.
        "xz": [
            *("xz", "--decompress", "--stdout", f"--threads={_threads()}"),
            *("--memlimit-mt-decompress=128MiB", "--memlimit-decompress=256MiB"),
        ],
        "zst": ["zstd", "--decompress", "--quiet", "--stdout", "--long=27"],
    }
    return table[kind]


def kind_of(head: bytes) -> str | None:
    """Return gz, xz or zst from the first bytes of a file, or None."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def compressing(target: IO[bytes], *, kind: str, level: int) -> Iterator[BinaryIO]:
    """Yield a stream; what is written to it arrives compressed in `target`, a real file.

    Raises CommandError with the words of the compressor, for example on a full disk.
    """
    argv = compressor(kind, level)
    broken: BrokenPipeError | None = None
    with run.start(argv, stdin=run.PIPE, stdout=target, stderr=run.PIPE, env=NO_OPTIONS) as process:
        assert process.stdin is not None  # noqa: S101  PIPE was asked for
        try:
            yield process.stdin  # type: ignore[misc]  # IO[bytes] is what BinaryIO is
            process.stdin.close()
        except BrokenPipeError as error:
            # The compressor gave up; its own words, below, are the ones that help.
            broken = error
            with suppress(BrokenPipeError):
                process.stdin.close()
        said = process.stderr.read() if process.stderr else b""
    if process.returncode:
        raise run.failure(run.Completed(argv=tuple(argv), status=process.returncode, stderr=said))
    if broken is not None:
        raise broken


@contextmanager
def decompressing(source: IO[bytes], *, name: str) -> Iterator[BinaryIO]:
    """Yield the decompressed bytes of an open file, from its start.

    Raises DataError when the file is not compressed, damaged or cut short. A reader that leaves
    early gets no complaint about the rest.
    """
    head = os.pread(source.fileno(), 6, 0)
    kind = kind_of(head)
    if kind is None:
        raise DataError(f"'{name}' is not compressed with gzip, xz or zstd")
    os.lseek(source.fileno(), 0, os.SEEK_SET)
    argv = decompressor(kind)
    with run.start(argv, stdin=source, stdout=run.PIPE, stderr=run.PIPE, env=NO_OPTIONS) as process:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        yield process.stdout  # type: ignore[misc]  # IO[bytes] is what BinaryIO is
        ended = not process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read() if process.stderr else b""
    if ended and process.returncode:
        raise DataError(f"'{name}' is damaged: {said.decode(errors='replace').strip()}")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Yield the decompressed bytes of a file; errors as in `decompressing`."""
    with path.open("rb") as file, decompressing(file, name=path.name) as stream:
        yield stream
