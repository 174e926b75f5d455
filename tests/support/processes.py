"""Processes that somebody else started."""

import os
import select

PATIENCE = 60.0


class Watch:
    """A process watched by a descriptor, which is its own for good: numbers are used again."""

    def __init__(self, number: bytes | str) -> None:
        try:
            self._descriptor = os.pidfd_open(int(number))
        except ProcessLookupError:
            self._descriptor = -1

    def is_gone(self, patience: float = PATIENCE) -> bool:
        """Tell whether the process ends within some seconds."""
        if self._descriptor == -1:
            return True
        return bool(select.select([self._descriptor], [], [], patience)[0])
