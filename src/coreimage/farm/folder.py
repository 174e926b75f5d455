"""The directory of one build: its record, log, lock and artifacts."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from coreimage.config import Workspace
from coreimage.lib import files
from coreimage.model.build import Build, BuildRequest

# What the lock of a build says while its builder holds it.
PURPOSE = "building"
_LOG_NAME = "buildlog_*_BUILDING.txt.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFolder:
    """Paths of builds/<id>/."""

    root: Path

    @property
    def record(self) -> Path:
        """The build as JSON, rewritten at each change."""
        return self.root / "build.json"

    @property
    def log(self) -> Path:
        """What the build said on stdout and stderr, until it is over."""
        return self.root / "log"

    @property
    def packed_log(self) -> Path | None:
        """The log of a build that is over, compressed; None as long as there is none."""
        return next(self.root.glob(_LOG_NAME), None)

    @property
    def lock(self) -> Path:
        """Held as long as anything of the build runs."""
        return self.root / "lock"

    @property
    def partial(self) -> Path:
        """Where the running build writes."""
        return self.root / "artifacts.partial"

    @property
    def artifacts(self) -> Path:
        """What a successful build left."""
        return self.root / "artifacts"

    def read(self) -> Build:
        """Return the build as it was recorded last; raises DataError, OSError."""
        return Build.from_json(self.record.read_bytes())

    def discard(self) -> None:
        """Remove what a build that did not succeed has written; the caller holds its lock."""
        # Artifacts without a success: whoever carried the build out was killed just then.
        for folder in (self.partial, self.artifacts):
            shutil.rmtree(folder, ignore_errors=True)
        files.sweep(self.root)


def log_name(request: BuildRequest) -> str:
    """Return the name of a finished log, as Launchpad has it."""
    name = "-".join(filter(None, (request.project, request.subproject)))
    words = (request.distribution or "unknown", request.series, request.target, name)
    return f"buildlog_{'_'.join(words)}_BUILDING.txt.gz".replace("/", "-")


def folder_of(workspace: Workspace, build_id: int) -> BuildFolder:
    """Return the directory of a build, which need not exist."""
    return BuildFolder(root=workspace.builds / str(build_id))


def highest_id(workspace: Workspace) -> int:
    """Return the highest build id that has a directory, 0 when there is none."""
    try:
        names = [path.name for path in workspace.builds.iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


def record(workspace: Workspace, build: Build) -> None:
    """Write build.json in one step, making the directory when the build is new."""
    folder = folder_of(workspace, build.id)
    folder.root.mkdir(parents=True, exist_ok=True)
    files.write_atomically(folder.record, build.to_json())
