import os
import signal
from types import FrameType

import pytest

from coreimage.lib import run


class StoppedError(Exception):
    pass


def test_a_signal_while_a_program_starts_leaves_no_program() -> None:
    """The program itself sends the signal, as soon as it can: mostly while it is being started."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for _ in range(20):
            with (
                pytest.raises(StoppedError),
                run.start(["sh", "-c", "kill -TERM $PPID; exec sleep 60"]) as process,
            ):
                process.wait()
            assert signal.getsignal(signal.SIGTERM) is stop
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
    finally:
        signal.signal(signal.SIGTERM, before)
