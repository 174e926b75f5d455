"""Writing deltas: the list of what goes, then the members that come, straight from the target."""

import io
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.lib import compress, tar
from coreimage.lib.files import Reader
from coreimage.lib.progress import Progress, ProgressReader
from coreimage.systemimage.delta.contents import LIST, delivered
from coreimage.systemimage.delta.plan import Plan


def write(plan: Plan, *, target: Path, output: Path, level: int, progress: Progress) -> None:
    """Write the delta tarball of a plan; `target` is the tarball that it was planned for.

    The same plan, target and level give the same bytes. Raises DataError when the target is not
    the one that the plan was made for; what was written by then is no delta.
    """
    with (
        output.open("wb") as file,
        compress.compressing(file, kind="xz", level=level) as packed,
        compress.opened(target) as unpacked,
        progress.task(f"writing {output.name}", None) as task,
    ):
        write_tar(plan, ProgressReader(unpacked, task), packed, name=target.name)


def write_tar(plan: Plan, target: Reader, output: BinaryIO, *, name: str) -> None:
    """Write a delta's tar stream from the tar stream of its target."""
    missing = set(plan.sent)
    with tar.reading(target, archive=name) as source, tar.writing(output) as archive:
        # An empty list is an empty line: a recovery reads no line that has no end.
        data = ("\n".join(plan.removed) + "\n").encode("utf-8", "surrogateescape")
        head = tar.entry(LIST, mtime=plan.newest, mode=0o644, size=len(data))
        archive.addfile(head, io.BytesIO(data))
        for member in tar.members(source, archive=name):
            if member.name in plan.sent:
                missing.discard(member.name)
                content = source.extractfile(member) if member.isreg() else None
                archive.addfile(delivered(member), content)
                archive.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
    if missing:
        raise DataError(f"'{name}' was changed while its delta was made: no '{min(missing)}'")
