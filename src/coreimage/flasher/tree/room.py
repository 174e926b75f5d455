"""Where trees are unpacked: in memory when there is plenty, else beside everything else.

A tree is thousands of files that are removed again some seconds later.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from coreimage.errors import RightsError
from coreimage.lib.files import scratch_directory, sweep
from coreimage.lib.progress import Progress
from coreimage.lib.temporary import temporary_place, temporary_places

# Tarballs of systems become four times as large when they are unpacked, some more.
_GROWTH = 6
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
Made = TypeVar("Made")


@contextmanager
def made_in_room(
    make: Callable[[Path], Made], packed: int, *, scratch: Path, progress: Progress
) -> Iterator[Made]:
    """Yield what `make` makes in an empty directory of ours, which is removed at the end.

    `packed` is the size in bytes of what is unpacked there, `scratch` a directory of the caller on
    a disk. Where the memory does not suffice in the end, it is made once more on the disk.
    """
    with ExitStack() as stack:
        place = temporary_place(packed * _GROWTH, usual=scratch)
        try:
            made = make(stack.enter_context(_room(place, scratch)))
        except OSError as error:
            if place == scratch or error.errno not in _FULL:
                raise
            progress.note(f"there is too little space in {place}: unpacking in {scratch}")
            stack.close()
            made = make(stack.enter_context(scratch_directory(scratch)))
        yield made


@contextmanager
def _room(place: Path, scratch: Path) -> Iterator[Path]:
    own = f"coreimage-trees-{os.geteuid()}"
    # Those of runs that were killed take memory until somebody looks.
    for each in temporary_places():
        if _is_own(each / own):
            sweep(each / own)
    if place == scratch:
        with scratch_directory(scratch) as room:
            yield room
        return
    parent = place / own
    parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(parent):
        raise RightsError(
            f"'{parent}' is not ours", hint="remove it, or set TMPDIR to another place"
        )
    with scratch_directory(parent) as room:
        yield room


def _is_own(path: Path) -> bool:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return state.st_uid == os.geteuid() and stat.S_ISDIR(state.st_mode)
