"""Who is to blame for a build that failed, told from its exit code: the build or the worker.

Source of the codes: sysexits.h, and `coreimage.errors`.
"""

from coreimage.errors import (
    BusyError,
    CommandError,
    ConfigError,
    CoreImageError,
    DataError,
    NoSpaceError,
    NotFoundError,
    RightsError,
    TrustError,
    UnavailableError,
)
from coreimage.farm import log
from coreimage.farm.folder import BuildFolder
from coreimage.lib import run
from coreimage.model.build import Build, BuildResult, BuildStatus

_SHOWN_LINES = 10
# These blame the machine, not the build: it may work elsewhere, or later.
_WORKERS_FAULTS = frozenset({69, 70, 74, 75, 77})
_FIRST_SIGNAL_STATUS = 128
_ERRORS: dict[int, type[CoreImageError]] = {
    error.exit_code: error
    for error in (
        DataError,
        NotFoundError,
        UnavailableError,
        NoSpaceError,
        BusyError,
        TrustError,
        RightsError,
        ConfigError,
    )
}
_COMPLAINT = "coreimage: error: "


def result_of(exit_code: int) -> BuildResult:
    """Return what an exit code other than 0 says, 128+n for a signal."""
    blames_worker = exit_code in _WORKERS_FAULTS or exit_code >= _FIRST_SIGNAL_STATUS
    return BuildResult.ERROR if blames_worker else BuildResult.FAILURE


def failure(folder: BuildFolder, status: int) -> CoreImageError:
    """Return the error for a program that failed, with its exit code and its last lines."""
    code = status if status > 0 else _FIRST_SIGNAL_STATUS - status
    tail = log.last_lines(folder, _SHOWN_LINES)
    error = _ERRORS.get(code, CommandError)(
        f"build '{folder.root.name}' failed, {run.describe_status(status)}"
        + "".join(f"\n  {line}" for line in tail),
        hint=f"the whole log: coreimage build log {folder.root.name}",
    )
    error.exit_code = code
    return error


def ending(folder: BuildFolder, build: Build) -> CoreImageError | None:
    """Return the error that a finished build amounts to, None for a success."""
    if build.succeeded:
        return None
    if build.status is BuildStatus.ABORTED:
        return CoreImageError(f"build '{build.id}' was cancelled")
    code = build.attempts[-1].exit_code if build.attempts else None
    if code:
        return failure(folder, code)
    error = CommandError(f"build '{build.id}' failed: {build.message}")
    if build.result is BuildResult.ERROR:
        error.exit_code = UnavailableError.exit_code
    return error


def complaint_in(folder: BuildFolder, error: CoreImageError) -> str:
    """Return one line: what the program complained of, else how it ended."""
    for line in reversed(log.last_lines(folder, _SHOWN_LINES)):
        if line.startswith(_COMPLAINT):
            return line.removeprefix(_COMPLAINT)
    return error.message.splitlines()[0]
