"""Making a tree: packages laid out for dpkg, and the steps of a plan carried out."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import CommandError, CoreImageError, DataError, NoSpaceError
from coreimage.lib import compress, run
from coreimage.lib.files import CHUNK
from coreimage.lib.progress import Progress
from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.packages import debs
from coreimage.rootfs.plan import RootfsPlan, Step, Where
from coreimage.rootfs.tree import overlay
from coreimage.rootfs.tree.chamber import Chamber, started

# With less than this left, in bytes, a program that failed has most likely found no room.
_FULL = 4 << 20
_STDERR = 2
# How chroot and env end when a program cannot be started; shells add 128 to a signal's number.
_NOT_STARTED = (126, 127)
_SHELL_SIGNALS = 128
# Source: linux/binfmts.h, BINPRM_BUF_SIZE; path_resolution(7).
_LONGEST_LINE = 256
_MAX_LINKS = 40


def chamber_of(plan: RootfsPlan) -> Chamber:
    """Return the chamber in which a plan's steps run."""
    return Chamber(tree=plan.layout.tree, as_root=plan.as_root, env=plan.env)


def install_packages(
    plan: RootfsPlan,
    selection: Selection,
    archive: Archive,
    packages: Sequence[Path],
    *,
    progress: Progress,
) -> None:
    """Make the tree of the package stage."""
    layout = plan.layout
    layout.tree.mkdir(mode=0o755)
    found = debs.read_all(packages)
    essential = debs.essentials(found)
    *early, last = debs.install_order(found, essential)
    groups = {
        "essential": essential,
        **{f"early/{number:03}": group for number, group in enumerate(early)},
        "last": last,
    }
    _write_inputs(plan, selection, archive, found, essential)
    with _decompressing(layout.debs, groups) as wait:
        wait("essential")
        definition = selection.definition
        left_out = debs.members_left_out(
            sorted((layout.debs / "essential").iterdir()),
            definition.exclude_paths,
            definition.include_paths,
        )
        layout.excluded.write_text("".join(f"{name}\n" for name in left_out))
        # One core installs them while the other goes on.
        run_steps(plan, plan.essential, progress=progress)
        for name in groups:
            wait(name)
        run_steps(plan, plan.packages, progress=progress)
    shutil.rmtree(layout.debs)


def _write_inputs(
    plan: RootfsPlan,
    selection: Selection,
    archive: Archive,
    found: Sequence[debs.Deb],
    essential: Sequence[debs.Deb],
) -> None:
    """Write what steps take in that follows from the packages."""
    overlay.write_base(
        overlay.base_files(selection, archive),
        plan.layout.overlay("base"),
        plan.epoch,
        merged=any(each.name in ("usrmerge", "usr-is-merged") for each in found),
    )
    manual = {each.name for each in (*essential, *(deb for deb in found if deb.required))}
    automatic = {each.name for each in found} - manual - {*selection.packages}
    overlay.write_overlay(
        {"var/lib/apt/extended_states": overlay.marks(automatic, selection.arch)},
        plan.layout.overlay("marks"),
        plan.epoch,
    )


@contextmanager
def _decompressing(
    folder: Path, groups: Mapping[str, Sequence[debs.Deb]]
) -> Iterator[Callable[[str], None]]:
    """Decompress groups of packages on all cores, each into a folder of its name.

    What is yielded waits for a group. Within a group the longest come first: none of them is to
    be alone at the end.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    jobs: dict[str, list[Future[None]]] = {}
    try:
        for name, group in groups.items():
            place = folder / name
            place.mkdir(parents=True)
            longest = sorted(group, key=lambda deb: -deb.path.stat().st_size)
            jobs[name] = [pool.submit(debs.unpack, each, place) for each in longest]

        def wait(name: str) -> None:
            for job in jobs[name]:
                job.result()

        yield wait
    finally:
        pool.shutdown(cancel_futures=True)


def run_steps(plan: RootfsPlan, steps: Sequence[Step], *, progress: Progress) -> None:
    """Carry out steps in their order; raises CommandError that names the one that failed."""
    for group in _groups(steps):
        with ExitStack() as stack:
            processes = [
                stack.enter_context(_step_started(plan, step, progress=progress)) for step in group
            ]
        for step, process in zip(group, processes, strict=True):
            if process.returncode:
                tree = plan.layout.tree
                about = about_hook(step, process.returncode, tree) if step.source else ""
                raise failure(step.title, process.returncode, tree, about=about)


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Return steps in groups that run at the same time."""
    groups: list[list[Step]] = []
    for step in steps:
        if step.together and groups:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


@contextmanager
def _step_started(
    plan: RootfsPlan, step: Step, *, progress: Progress
) -> Iterator[run.Process[bytes]]:
    """Start a step, whose process has ended when the block is left."""
    chamber = chamber_of(plan)
    if step.where is Where.INSIDE:
        argv = chamber.inside(step.argv, binds=step.binds)
    else:
        argv = chamber.beside(step.argv)
    opened = step.stdin.open("rb") if step.stdin and step.stdin.is_file() else nullcontext()
    with (
        progress.task(step.title, None, unit="steps"),
        opened as stdin,
        started(argv, stdin=stdin or run.DEVNULL, stdout=_STDERR) as process,
    ):
        yield process


def failure(title: str, status: int, place: Path, *, about: str = "") -> CoreImageError:
    """Return the error for a step that failed; `about` is what else can be told."""
    free = shutil.disk_usage(place if place.exists() else place.parent).free
    if free < _FULL:
        return NoSpaceError(
            f"'{title}' failed: no space is left in '{place.parent}'",
            hint="free some space, or set TMPDIR to another place",
        )
    return CommandError(
        f"'{title}' failed, {_described(status)}" + (f": {about}" if about else ""),
        hint="its own words are in the log, above this message",
    )


def _described(status: int) -> str:
    told = run.describe_status(status)
    if _SHELL_SIGNALS < status <= _SHELL_SIGNALS + signal.NSIG:
        told += f" ({run.describe_status(_SHELL_SIGNALS - status)})"
    return told


def about_hook(step: Step, status: int, tree: Path) -> str:
    """Return where a hook that failed is from, and why it could not be started if so."""
    assert step.source is not None  # noqa: S101  it is a hook
    reason = ""
    if status in _NOT_STARTED:
        with suppress(OSError):
            reason = _not_started(step, step.source, tree)
    return f"{step.source}" + (f": {reason}" if reason else "")


def _not_started(step: Step, hook: Path, tree: Path) -> str:
    """Return why a hook cannot be started, or nothing when it is not known to be so."""
    inside = step.where is Where.INSIDE
    if inside and not hook.stat().st_mode & 0o100:
        return "it is not executable"
    with hook.open("rb") as file:
        first = file.readline(_LONGEST_LINE).decode(errors="replace").removesuffix("\n")
    if not first.startswith("#!"):
        return "it does not begin with '#!' and an interpreter"
    if first.endswith("\r"):
        first = first.removesuffix("\r") + "\\r"
        return f"its interpreter '{first[2:].strip()}' is not there: its lines end with CR LF"
    name = (first[2:].split() or [""])[0]
    if not _is_in(tree if inside else Path("/"), name):
        return f"its interpreter '{name}' is not " + ("in the system" if inside else "here")
    return ""


def _is_in(tree: Path, name: str) -> bool:
    """Whether a tree has a path, links followed as its programs would."""
    at, links = tree, 0
    pending = name.split("/")[::-1]
    while pending:
        part = pending.pop()
        here = at / part
        if part == "..":
            at = at if at == tree else at.parent
        elif here.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                return False
            target = str(here.readlink())
            at = tree if target.startswith("/") else at
            pending += target.split("/")[::-1]
        elif not here.exists():
            return False
        else:
            at = here
    return True


@contextmanager
def packed(plan: RootfsPlan) -> Iterator[BinaryIO]:
    """Yield the tree as a tar stream; raises CommandError when it could not be written whole."""
    with started(chamber_of(plan).beside(plan.pack), stdout=run.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        try:
            yield process.stdout  # type: ignore[misc]  # IO[bytes] is what BinaryIO is
        except DataError as error:
            # A program that failed leaves no whole tree; how it failed is what helps. It is heard
            # to its end: a stream that nobody reads would make it fail.
            while process.stdout.read(CHUNK):
                pass
            if process.wait() == 0:
                raise
            raise failure("pack the tree", process.returncode, plan.layout.tree) from error
    if process.returncode:
        raise failure("pack the tree", process.returncode, plan.layout.tree)


def save_tree(plan: RootfsPlan, target: Path) -> None:
    """Write the tree to a file, as a tar compressed by zstd; raises CommandError."""
    with (
        target.open("wb") as output,
        compress.compressing(output, kind="zst", level=1) as stream,
        started(chamber_of(plan).beside(plan.pack), stdout=stream.fileno()) as process,
    ):
        process.wait()
        if process.returncode:
            raise failure("keep the tree", process.returncode, target)


def restore_tree(plan: RootfsPlan, source: BinaryIO) -> None:
    """Lay out a tree that was saved; raises CommandError."""
    plan.layout.tree.mkdir(mode=0o755)
    unpack = ["tar", "--extract", "--file=-", "--numeric-owner", "--preserve-permissions"]
    argv = chamber_of(plan).beside([*unpack, "--xattrs", "--xattrs-include=*"])
    with (
        compress.decompressing(source, name="the kept tree") as stream,
        started(argv, stdin=stream.fileno(), stdout=_STDERR) as process,
    ):
        process.wait()
        while stream.read(CHUNK):  # to hear whether it was whole
            pass
    if process.returncode:
        raise failure("lay out the kept tree", process.returncode, plan.layout.tree)


def remove_tree(tree: Path, *, as_root: bool) -> None:
    """Remove a tree and what is left of it, which may belong to users of a namespace."""
    if tree.exists():
        chamber = Chamber(tree=tree.parent, as_root=as_root)
        with started(chamber.beside(["rm", "-rf", "--one-file-system", tree.name])):
            pass
