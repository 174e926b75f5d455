"""Gzip on all cores, whose output depends on input and level alone.

libdeflate has one code path for what it puts out, whatever the processor. Every block of 1 MiB is a
gzip member of its own (RFC 1952, 2.2), so the number of threads changes nothing either.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import deflate

BLOCK = 1 << 20


def _compress(block: bytes, level: int) -> bytes:
    return bytes(deflate.gzip_compress(block, level))


class GzipWriter:
    """Compress what is written, in blocks, into a file."""

    def __init__(self, output: BinaryIO, level: int, pool: ThreadPoolExecutor, depth: int) -> None:
        self._output = output
        self._level = level
        self._pool = pool
        self._depth = depth
        self._block = bytearray()
        self._jobs: deque[Future[bytes]] = deque()

    def write(self, data: bytes | memoryview, /) -> int:
        """Take some bytes; raises OSError when the file cannot be written."""
        self._block += data
        if len(self._block) >= BLOCK:
            whole = len(self._block) // BLOCK * BLOCK
            with memoryview(self._block) as view:
                blocks = [bytes(view[at : at + BLOCK]) for at in range(0, whole, BLOCK)]
            del self._block[:whole]
            for block in blocks:
                self._submit(block)
        return len(data)

    def finish(self) -> None:
        """Write what is left; an empty file is one empty member."""
        if self._block or not (self._jobs or self._output.tell()):
            self._submit(bytes(self._block))
            self._block.clear()
        while self._jobs:
            self._output.write(self._jobs.popleft().result())

    def _submit(self, block: bytes) -> None:
        if len(self._jobs) >= self._depth:
            self._output.write(self._jobs.popleft().result())
        self._jobs.append(self._pool.submit(_compress, block, self._level))


@contextmanager
def gzip_file(path: Path, level: int) -> Iterator[GzipWriter]:
    """Yield a writer of a new file, which is whole when the block is left without an error."""
    threads = max(1, len(os.sched_getaffinity(0)))
    with path.open("wb") as output, ThreadPoolExecutor(threads) as pool:
        writer = GzipWriter(output, level, pool, 2 * threads)
        yield writer
        writer.finish()
