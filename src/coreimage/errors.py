"""Errors: what is wrong, what to do next, and the exit code that tells a farm who is to blame.

The exit codes follow sysexits.h (65-78), so that a caller can tell bad input from a bad machine.
"""


class CoreImageError(Exception):
    """A failure that the person in front of the terminal can understand.

    `message` is lower case and names the thing that is wrong; `hint` is an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CommandError(CoreImageError):
    """A program that we ran failed."""


class UsageError(CoreImageError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class IncompleteError(CoreImageError):
    """A part of what was asked for is done, and the rest failed."""

    exit_code = 3


class DataError(CoreImageError):
    """Input is malformed: a definition, an OEM package, an index, a tarball."""

    exit_code = 65


class NotFoundError(CoreImageError):
    """No such channel, device, version, build, definition."""

    exit_code = 66


class UnavailableError(CoreImageError):
    """A mirror or server cannot be reached, or gave up half way."""

    exit_code = 69


class NoSpaceError(CoreImageError):
    """A disk is full, or will be: the machine's fault, not that of what is made there."""

    exit_code = 74


class BusyError(CoreImageError):
    """Somebody else holds the lock."""

    exit_code = 75


class TrustError(CoreImageError):
    """A signature, key, checksum or freshness check refused the data."""

    exit_code = 76


class RightsError(CoreImageError):
    """A right or a kernel feature is missing."""

    exit_code = 77


class ConfigError(CoreImageError):
    """coreimage.toml is wrong: file, line, key, nearest valid key."""

    exit_code = 78


class TerminatedError(CoreImageError):
    """A signal asked us to stop; `signal_number` becomes exit code 128+n."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number
