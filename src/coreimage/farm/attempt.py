"""One attempt at a build: its program, what it leaves, and how that is recorded."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, TerminatedError
from coreimage.farm import log, queue
from coreimage.farm.blame import complaint_in, failure, result_of
from coreimage.farm.folder import PURPOSE, BuildFolder, folder_of
from coreimage.farm.store import Store
from coreimage.farm.voice import Narrator, Voice
from coreimage.lib import files, run
from coreimage.model.build import Attempt, Build, BuildResult

# How long the guard may take to end what is left when the program's own time is over, in seconds.
_GUARD_TIME = 10.0
# The one artifact that says what the others were made of.
_RECORD = ".build.json"


@dataclass(slots=True, kw_only=True)
class Running:
    """A build that this process carries out.

    `error` is why an attempt that is over came to nothing, `stopping` that it was asked to end.
    """

    workspace: Workspace
    store: Store
    folder: BuildFolder
    build: Build
    process: run.Process[bytes]
    descriptor: int
    narrator: Narrator
    clock: Callable[[], datetime]
    stack: ExitStack
    stopping: bool = False
    error: CoreImageError | None = None

    def ask_to_end(self) -> None:
        """Tell the program to end, without waiting; its guard sees to it that it does."""
        if not self.stopping:
            self.stopping = True
            self.process.terminate()

    def finish(self) -> None:
        """Record how the attempt ended, now that its program has."""
        self.narrator.new_lines()
        status = self.process.wait()
        try:
            if status and self.stopping:
                self.error = CoreImageError(f"build '{self.build.id}' was cancelled")
                self._settle(None, queue.ABORTED)
            elif status:
                raise failure(self.folder, status)
            else:
                self._succeed()
        except TerminatedError:
            raise
        except CoreImageError as error:
            self.error = error
            self._settle(result_of(error.exit_code), complaint_in(self.folder, error))
        except OSError as error:
            self.error = CoreImageError(f"build '{self.build.id}' could not be kept: {error}")
            self._settle(BuildResult.ERROR, str(error))

    def stop(self, message: str, *, requeue: bool) -> None:
        """End the program with all that it has started, record that, and let go of it."""
        with self.stack:
            grace = self.workspace.settings.farm.abort_grace + _GUARD_TIME
            run.terminate(self.process, grace=grace)
            self.narrator.new_lines()
            self._settle(BuildResult.ERROR if requeue else None, message, requeue=requeue)

    def release(self) -> None:
        """Let go of a build that is recorded."""
        self.stack.close()

    def _succeed(self) -> None:
        artifacts = _keep_artifacts(self.folder)
        fingerprint = _recorded_fingerprint(self.folder, artifacts)
        log.pack(self.folder, self.build.request)
        self.build = self.store.complete(
            self.build.id,
            self._ended(BuildResult.SUCCESS, ""),
            artifacts=artifacts,
            fingerprint=fingerprint,
        )

    def _settle(self, result: BuildResult | None, message: str, *, requeue: bool = False) -> None:
        ended = self._ended(result, message)
        self.build = queue.settle(
            self.workspace, self.store, ended, build_id=self.build.id, requeue=requeue
        )

    def _ended(self, result: BuildResult | None, message: str) -> Attempt:
        return queue.end_of(
            self.build,
            now=self.clock(),
            result=result,
            message=message,
            exit_code=self.process.returncode,
        )


def begin(
    workspace: Workspace,
    build_id: int,
    *,
    argv: Sequence[str],
    voice: Voice,
    worker: str,
    clock: Callable[[], datetime] = queue.now_utc,
) -> Running:
    """Claim a pending build and start its program; raises BusyError when somebody else has it.

    What the program writes to builds/<id>/artifacts.partial becomes artifacts/; its output goes to
    the log, after that of earlier attempts. A guard stands between us and the program: it holds
    the build's lock too, and ends when nothing of the build is alive.
    """
    store = queue.open_store(workspace)
    store.get(build_id)
    folder = folder_of(workspace, build_id)
    with ExitStack() as stack:
        lock = stack.enter_context(files.lock(folder.lock, purpose=PURPOSE))
        build = store.claim(build_id, worker=worker, now=clock())
        try:
            folder.discard()
            log.unpack(folder)
            folder.partial.mkdir()
            with folder.log.open("ab") as said:
                position = said.tell()
                if build.attempt > 1:
                    said.write(f"== Attempt {build.attempt}, by {worker}\n".encode())
                    said.flush()
                process = stack.enter_context(
                    run.start(
                        _guarded(argv, workspace.settings.farm.abort_grace),
                        stdout=said,
                        stderr=run.STDOUT,
                        env={
                            "COREIMAGE_WORKSPACE": str(workspace.root),
                            "PYTHONUNBUFFERED": "1",
                        },
                        pass_fds=(lock,),
                        session=True,
                    )
                )
            descriptor = os.pidfd_open(process.pid)
            stack.callback(os.close, descriptor)
        except BaseException as error:
            blamed = isinstance(error, Exception) and not isinstance(error, TerminatedError)
            result = BuildResult.ERROR if blamed else None
            words = str(error) if blamed else queue.ABORTED
            ended = queue.end_of(build, now=clock(), result=result, message=words)
            queue.settle(workspace, store, ended, build_id=build_id)
            raise
        return Running(
            workspace=workspace,
            store=store,
            folder=folder,
            build=build,
            process=process,
            descriptor=descriptor,
            narrator=Narrator(folder, voice, position=position),
            clock=clock,
            stack=stack.pop_all(),
        )


def _guarded(argv: Sequence[str], grace: float) -> list[str]:
    return [sys.executable, "-m", "coreimage.cli.guard", str(grace), *argv]


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
            hint=f"read its log: coreimage build log {folder.root.name}",
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
