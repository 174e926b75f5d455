"""Deltas of whole images: one for each pair of files, and the proof that they fit together.

Old recoveries apply the files of an image one after the other to the same tree, so a delta of one
file could disturb what another one brought. What will happen is therefore acted out with names and
digests; only deltas that end at the target are offered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.lib import compress
from coreimage.lib.progress import Progress, ProgressReader
from coreimage.systemimage.delta.contents import Contents, UnsuitableError, read, same
from coreimage.systemimage.delta.plan import Plan, plan
from coreimage.systemimage.delta.write import write


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A file of the base image and the one in its place in the target, as paths of tarballs.

    Without `base` the target's file is new; without `target` the base's file is no longer there.
    With `whole` the target's file is sent as it is, like the version file always.
    """

    base: Path | None
    target: Path | None
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """There can be no delta between two images; `reason` names the path that is in the way."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """What leads from one image to another: a plan for each pair, None for a file sent whole.

    An empty plan means that the pair needs no file at all.
    """

    plans: Sequence[Plan | None]


def plan_image(pairs: Sequence[Pair], *, progress: Progress) -> ImagePlan | Refusal:
    """Plan the deltas between two images whose files are given as pairs in the order of applying.

    The plan of a pair depends on that pair alone, so its delta can serve other images too.
    Raises DataError for damaged tarballs.
    """
    try:
        known: dict[Path, Contents] = {}
        bases = [_contents(pair.base, known, progress) for pair in pairs]
        targets = [_contents(pair.target, known, progress) for pair in pairs]
        plans = [_plan_pair(*each) for each in zip(pairs, bases, targets, strict=True)]
        _require_exact(plans, bases, targets)
    except UnsuitableError as error:
        return Refusal(reason=str(error))
    return ImagePlan(plans=plans)


def write_delta(
    *, base: Path, target: Path, output: Path, level: int, progress: Progress
) -> Plan | Refusal:
    """Write the delta from one tarball to another and return what is in it, or why there is none.

    This is the single file; whether it is right in an image, `plan_image` tells.
    """
    found = plan_image([Pair(base=base, target=target)], progress=progress)
    if isinstance(found, Refusal):
        return found
    planned = found.plans[0]
    assert planned is not None  # noqa: S101  a pair with two sides that is not sent whole
    write(planned, target=target, output=output, level=level, progress=progress)
    return planned


def _contents(path: Path | None, known: dict[Path, Contents], progress: Progress) -> Contents:
    if path is None:
        return Contents("nothing")
    if path not in known:
        with (
            compress.opened(path) as stream,
            progress.task(f"comparing {path.name}", None) as task,
        ):
            known[path] = read(ProgressReader(stream, task), name=path.name)
    return known[path]


def _plan_pair(pair: Pair, base: Contents, target: Contents) -> Plan | None:
    if pair.target is None:
        return Plan()
    return None if pair.whole or pair.base is None else plan(base, target)


def _require_exact(
    plans: Sequence[Plan | None], bases: Sequence[Contents], targets: Sequence[Contents]
) -> None:
    """Act the deltas out and raise UnsuitableError unless they end at the target image.

    Times of directories are not compared: a directory that several files list, or put something
    in, has the time of whoever came last, in full images too.
    """
    result, wanted = Contents("the base image"), Contents("the target image")
    for base in bases:
        result.overlay(base)
    for each, target in zip(plans, targets, strict=True):
        wanted.overlay(target)
        if each is not None:
            result.remove(each.removed)
        result.overlay(target, None if each is None else each.sent)
    _require_same(result, wanted)


def _require_same(result: Contents, wanted: Contents) -> None:
    for path in sorted({*result.nodes, *wanted.nodes}):
        if not same(result.nodes.get(path), wanted.nodes.get(path), directory_times=False):
            raise UnsuitableError(f"files of the images get in each other's way at {path!r}")
    if sorted(result.groups()) != sorted(wanted.groups()):
        raise UnsuitableError("files of the images get in the way of each other's hard links")
