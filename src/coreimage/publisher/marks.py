"""Marks: which publication is pending, which is current, which are marked good."""

from pathlib import Path

from coreimage.errors import NotFoundError
from coreimage.lib.files import write_atomically
from coreimage.model.publication import IMAGE_TYPE, Publication, build_id_key, is_build_id
from coreimage.publisher.publish import locked, point

MARKED_GOOD = ".marked_good"


def publications(tree: Path) -> list[Publication]:
    """Return all publications of a tree, by project and series, oldest first."""
    found = [
        Publication(project=path.parts[-4], series=path.parts[-3], version=path.name)
        for path in tree.glob(f"[!.]*/[!.]*/{IMAGE_TYPE}/*")
        if is_build_id(path.name) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found, key=lambda each: (each.project, each.series, build_id_key(each.version)))


def marks(tree: Path, publication: Publication) -> list[str]:
    """Return which of pending, current and good a publication carries."""
    parent = tree / publication.parent
    names = [
        name
        for name in ("pending", "current")
        if (parent / name).is_symlink() and (parent / name).readlink() == Path(publication.version)
    ]
    return [*names, "good"] if (tree / publication.path / MARKED_GOOD).exists() else names


def mark_good(tree: Path, publication: Publication, *, locks: Path) -> None:
    """Record that a publication passed, and make `current` point at the newest one that did.

    Raises NotFoundError that names the publications there are.
    """
    place = tree / publication.path
    if not place.is_dir():
        known = [
            each.version
            for each in publications(tree)
            if (each.project, each.series) == (publication.project, publication.series)
        ]
        raise NotFoundError(
            f"there is no publication '{publication.path}'",
            hint="the build ids are " + ", ".join(known) if known else "",
        )
    with locked(locks, purpose=f"mark {publication.path} good"):
        if not (place / MARKED_GOOD).exists():
            write_atomically(place / MARKED_GOOD, "")
        good = [
            path.parent.name
            for path in place.parent.glob(f"*/{MARKED_GOOD}")
            if is_build_id(path.parent.name)
        ]
        point(place.parent / "current", max(good, key=build_id_key))
