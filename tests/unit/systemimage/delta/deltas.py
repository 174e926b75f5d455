"""Deltas between tar archives in memory."""

import io
import tarfile

from coreimage.systemimage.delta import contents, plan, write


def planned(base: bytes, target: bytes) -> plan.Plan:
    return plan.plan(
        contents.read(io.BytesIO(base), name="base.tar"),
        contents.read(io.BytesIO(target), name="target.tar"),
    )


def delta(base: bytes, target: bytes) -> bytes:
    output = io.BytesIO()
    write.write_tar(planned(base, target), io.BytesIO(target), output, name="target.tar")
    return output.getvalue()


def members(tarball: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tarball), encoding="utf-8") as archive:
        return archive.getmembers()


def names(tarball: bytes) -> list[str]:
    return [member.name for member in members(tarball)]


def removed(tarball: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(tarball), encoding="utf-8") as archive:
        content = archive.extractfile("removed")
        assert content is not None
        return content.read().decode("utf-8", "surrogateescape")
