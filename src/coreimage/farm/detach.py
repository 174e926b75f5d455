"""Work that goes on after the command that began it has returned."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from coreimage.errors import CoreImageError

_INTERNAL = 70


def detach(work: Callable[[], object], *, log: Path) -> int:
    """Do `work` in a process with a session of its own and return its id at once.

    The process has neither our terminal nor our pipes; what it says goes to `log`. Its exit code
    is 0, or that of the error.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else both processes hold what is in the buffers
    process_id = os.fork()
    if process_id:
        return process_id
    status = _INTERNAL
    try:
        os.setsid()
        _leave_streams(log)
        work()
        status = 0
    except CoreImageError as error:
        status = error.exit_code
    except BaseException:  # noqa: BLE001  nobody above us may see it: it is not our stack
        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_streams(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, targets in ((nothing, (0,)), (said, (1, 2))):
        for target in targets:
            os.dup2(source, target)
        os.close(source)
