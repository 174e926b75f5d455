"""The local executor: a build becomes a child process with a log, and its files artifacts."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import (
    BusyError,
    CommandError,
    ConfigError,
    CoreImageError,
    DataError,
    NotFoundError,
    RightsError,
    TerminatedError,
    TrustError,
    UnavailableError,
)
from coreimage.farm.folder import PURPOSE, BuildFolder, folder_of
from coreimage.farm.log import last_lines, printable, read_from
from coreimage.farm.queue import fail_lost, now_utc, open_store
from coreimage.farm.store import Store
from coreimage.lib import files, run
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildRequest, BuildState

# A look at the lock by somebody else lasts microseconds; a builder does not give up for that.
_LOCK_PATIENCE = 2.0
_LOOK_INTERVAL = 0.2
_SHOWN_LINES = 10
# Exit codes that blame the machine, not the build (sysexits.h): it may work elsewhere.
_BUILDER_FAILURES = frozenset({69, 70, 75, 77})
_FIRST_SIGNAL_STATUS = 128
_ERRORS: dict[int, type[CoreImageError]] = {
    error.exit_code: error
    for error in (
        DataError,
        NotFoundError,
        UnavailableError,
        BusyError,
        TrustError,
        RightsError,
        ConfigError,
    )
}
# The one artifact that says what the others were made of.
_RECORD = ".build.json"
_STAGE = "== "
_COMPLAINT = "coreimage: error: "


def rootfs_argv(request: BuildRequest, output: Path, extra: Sequence[str] = ()) -> list[str]:
    """Return the command that builds the root filesystem of a request into a directory."""
    return [
        *[sys.executable, "-m", "coreimage", "rootfs", "build", request.project],
        *["--release", request.release],
        *["--arch", request.arch],
        *["--output", str(output)],
        *extra,
    ]


def run_build(
    workspace: Workspace,
    build_id: int,
    *,
    argv: Sequence[str],
    progress: Progress,
    echo: Callable[[str], None] | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> Build:
    """Carry out a waiting build with a child process and return it with its artifacts.

    What the child writes to builds/<id>/artifacts.partial becomes artifacts/; its output goes to
    the log. Lines of the log that begin a stage go to `progress`, the others to `echo`. A failure
    is raised with the child's exit code; the state is recorded in every case.
    """
    store = open_store(workspace)
    fail_lost(workspace, store)
    folder = folder_of(workspace, build_id)
    store.get(build_id)
    with files.lock(folder.lock, purpose=PURPOSE, wait=_LOCK_PATIENCE):
        store.claim(build_id, now=clock())
        with _state_on_failure(store, folder, build_id, clock):
            folder.discard_partial()
            folder.partial.mkdir()
            environment = {"COREIMAGE_WORKSPACE": str(workspace.root), "PYTHONUNBUFFERED": "1"}
            status = _run_child(folder, argv, environment, progress, echo)
            if status:
                raise _failure(folder, status)
            store.change(build_id, lambda build: replace(build, state=BuildState.UPLOADING))
            artifacts = _keep_artifacts(folder)
            fingerprint = _recorded_fingerprint(folder, artifacts)
            return store.change(
                build_id,
                lambda build: replace(
                    build,
                    state=BuildState.SUCCEEDED,
                    finished_at=clock(),
                    artifacts=artifacts,
                    fingerprint=fingerprint or build.fingerprint,
                ),
            )


def _run_child(
    folder: BuildFolder,
    argv: Sequence[str],
    environment: dict[str, str],
    progress: Progress,
    echo: Callable[[str], None] | None,
) -> int:
    """Run the child to its end, tell what it says, and return its status."""
    show = _Narrator(folder, progress, echo)
    with (
        folder.log.open("ab") as log,
        run.start(argv, stdout=log, stderr=run.STDOUT, env=environment) as process,
    ):
        while True:
            try:
                status = process.wait(_LOOK_INTERVAL)
            except run.TimeoutExpired:
                show.new_lines()
                continue
            show.new_lines()
            return status


class _Narrator:
    """Tells what is new in a log."""

    def __init__(
        self, folder: BuildFolder, progress: Progress, echo: Callable[[str], None] | None
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._echo = echo
        self._position = 0
        self._rest = b""

    def new_lines(self) -> None:
        """Tell the lines that were completed since the last call."""
        for chunk in read_from(self._folder, self._position):
            self._position += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._tell(printable(line.decode(errors="replace")))

    def _tell(self, line: str) -> None:
        if line.startswith(_STAGE):
            self._progress.stage(line.removeprefix(_STAGE))
        elif self._echo is not None and line:
            self._echo(line)


def _keep_artifacts(folder: BuildFolder) -> tuple[str, ...]:
    """Give what was built its final name and return the names of the files."""
    names = sorted(
        str(path.relative_to(folder.partial))
        for path in folder.partial.rglob("*")
        if path.is_file()
    )
    if not names:
        raise DataError(
            f"build '{folder.root.name}' ended well but left no artifacts",
            hint=f"read its log '{folder.log}'",
        )
    files.fsync_tree(folder.partial)
    folder.partial.rename(folder.artifacts)
    files.fsync_directory(folder.root)
    return tuple(names)


def _recorded_fingerprint(folder: BuildFolder, artifacts: Sequence[str]) -> str:
    """Return the digest of what went in, in the builder's own words, empty when it has none.

    The archive may have changed since the build was asked for: what counts is what was built.
    """
    for name in artifacts:
        if name.endswith(_RECORD):
            try:
                record = json.loads((folder.artifacts / name).read_bytes())
            except ValueError:
                return ""
            found = record.get("fingerprint") if isinstance(record, dict) else None
            return found if isinstance(found, str) else ""
    return ""


@contextmanager
def _state_on_failure(
    store: Store, folder: BuildFolder, build_id: int, clock: Callable[[], datetime]
) -> Iterator[None]:
    """Record how a build ended when it did not end well."""

    def end(state: BuildState, message: str) -> None:
        folder.discard_partial()
        store.change(
            build_id,
            lambda build: replace(build, state=state, message=message, finished_at=clock()),
        )

    try:
        yield
    except (KeyboardInterrupt, TerminatedError):
        end(BuildState.CANCELLED, "cancelled while it ran")
        raise
    except CoreImageError as error:
        end(_state_for(error.exit_code), _reason(folder, error))
        raise
    except BaseException as error:
        end(BuildState.CHROOT_PROBLEM, f"{type(error).__name__}: {error}")
        raise


def _state_for(exit_code: int) -> BuildState:
    blames_builder = exit_code in _BUILDER_FAILURES or exit_code >= _FIRST_SIGNAL_STATUS
    return BuildState.CHROOT_PROBLEM if blames_builder else BuildState.FAILED


def _failure(folder: BuildFolder, status: int) -> CoreImageError:
    """Return the error for a child that failed, with its exit code and its last lines."""
    code = status if status > 0 else _FIRST_SIGNAL_STATUS - status
    tail = last_lines(folder, _SHOWN_LINES)
    error = _ERRORS.get(code, CommandError)(
        f"build '{folder.root.name}' failed, {run.describe_status(status)}"
        + "".join(f"\n  {line}" for line in tail),
        hint=f"the whole log is '{folder.log}'",
    )
    error.exit_code = code
    return error


def _reason(folder: BuildFolder, error: CoreImageError) -> str:
    """Return one line: what the child complained of, else how it ended."""
    for line in reversed(last_lines(folder, _SHOWN_LINES)):
        if line.startswith(_COMPLAINT):
            return line.removeprefix(_COMPLAINT)
    return error.message.splitlines()[0]
