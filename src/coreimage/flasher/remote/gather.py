"""Getting all files of an image at once: some download while others are unpacked already.

A file is handed out once its own checksum and signature were verified, whatever the others do;
they are handed out in the order of applying, whichever comes first.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import BinaryIO

from coreimage.errors import NotFoundError, TrustError
from coreimage.flasher.remote.mirrors import from_mirrors
from coreimage.flasher.remote.source import Payload, Source
from coreimage.lib.progress import Progress
from coreimage.lib.trust import Chain
from coreimage.model.index import Image, ImageFile

_AT_ONCE = 4
# How long we wait for a download that was told to end: a name that is looked up cannot be told.
_PATIENCE = 5.0


class Gathering:
    """The files of an image, in the order of applying. Iterating waits for each in turn."""

    def __init__(self, source: Source, image: Image, chain: Chain, progress: Progress) -> None:
        self.entries: Sequence[ImageFile] = sorted(image.files, key=lambda file: file.order)
        self._source, self._chain, self._progress = source, chain, progress
        self._files: list[Future[Payload]] = [Future() for _ in self.entries]
        self._fault: BaseException | None = None
        self._asking = threading.Lock()
        # Small as it is, the version says whether the image is the one that was asked for.
        count = len(self.entries)
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (count - 1, *range(count - 1)):
            self._waiting.put(number)
        # Not of a pool: the interpreter waits for those at its end, whatever they are stuck in.
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(count, _AT_ONCE))
        ]

    def __iter__(self) -> Iterator[Payload]:
        """Yield every file once it is verified; raises what went wrong first with any of them."""
        for number in range(len(self.entries)):
            yield self.wait(number)

    def wait(self, number: int) -> Payload:
        """Return one file once it is verified."""
        future = self._files[number]
        error = self._fault or future.exception()
        if error is not None:
            # Another may have failed first, and this one was ended for it.
            raise self._fault or error
        return future.result()

    def start(self) -> None:
        """Begin to bring the files."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End what still runs, and close all files."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        started = [thread for thread in self._threads if thread.ident is not None]
        if any(thread.is_alive() for thread in started):
            self._source.stop()
        for thread in started:
            thread.join(_PATIENCE)
        for future in self._files:
            if future.done() and future.exception() is None:
                future.result().file.close()

    def _work(self) -> None:
        with suppress(queue.Empty):
            while True:
                number = self._waiting.get_nowait()
                try:
                    self._files[number].set_result(self._payload(self.entries[number]))
                except BaseException as error:  # noqa: BLE001  raised where it is waited for
                    if self._fault is None:
                        self._fault = error
                        self._source.stop()
                    self._files[number].set_exception(error)

    def _payload(self, entry: ImageFile) -> Payload:
        if self._fault is not None:
            raise self._fault
        opened = self._source.payload(entry, self._progress)
        try:
            with self._asking:
                from_mirrors(
                    self._source, lambda: _verify(self._source, entry, self._chain, opened)
                )
        except BaseException:
            opened.close()
            raise
        opened.seek(0)
        return Payload(entry=entry, file=opened)


@contextmanager
def gathered(source: Source, image: Image, chain: Chain, progress: Progress) -> Iterator[Gathering]:
    """Yield the files of an image while they are brought.

    Reading raises TrustError for a wrong checksum or signature. What still runs when the block
    ends, or when one file cannot be had, is ended.
    """
    gathering = Gathering(source, image, chain, progress)
    try:
        gathering.start()
        yield gathering
    finally:
        gathering.end()


def _verify(source: Source, entry: ImageFile, chain: Chain, opened: BinaryIO) -> None:
    try:
        signature = source.metadata(entry.signature)
    except NotFoundError as error:
        raise TrustError(f"'{entry.path}' has no signature: {error.message}") from error
    opened.seek(0)
    chain.verify(opened, signature, level=chain.payload_level, what=entry.path)
