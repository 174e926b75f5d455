"""The live-build tree beside a definition.toml: its parts, its layers, and what lies in them.

A layer is a folder with parts. Each definition has four, of which later ones win: its own folder,
series/SERIES, arch/ARCH and device/DEVICE below it.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coreimage.errors import DataError

# The parts of a layer, and what the names of their files end with where not all are allowed.
PARTS: Mapping[str, Sequence[str]] = {
    "archives": (".list.chroot", ".sources.chroot", ".key.chroot", ".pref.chroot"),
    "hooks": (".chroot_early", ".chroot", ".binary"),
    "ids": ("passwd", "group"),
    "includes.chroot": (),
    "includes.chroot_before_packages": (),
    "package-lists": (".list.chroot",),
    "preseed": (".cfg", ".cfg.chroot"),
}
# How names of files begin that may lie beside the folders.
_FOR_PEOPLE = ("README", "LICENSE", "COPYING")
_VARIANTS = ("series", "arch", "device")
# What apt reads of a folder of sources.
_APT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/-]*")


def layers(folders: Sequence[Path], *, series: str, arch: str, device: str) -> list[Path]:
    """Return the layers of definitions, the ones that win last."""
    chosen = ("", f"series/{series}", f"arch/{arch}", f"device/{device}")
    return [folder / part for folder in folders for part in chosen]


def files(layers: Sequence[Path], part: str) -> dict[str, Path]:
    """Return the files of a part by their name below it; of the same name the last one wins.

    Among what is laid over a tree are empty folders, too.
    """
    found: dict[str, Path] = {}
    folders = not PARTS[part]
    for layer in layers:
        for path in sorted((layer / part).rglob("*")):
            empty = folders and path.is_dir() and not any(path.iterdir())
            if path.is_symlink() or path.is_file() or empty:
                found[str(path.relative_to(layer / part))] = path
    return dict(sorted(found.items()))


def check(folder: Path, *, known: Mapping[str, Sequence[str]] | None = None) -> None:
    """Refuse what would be ignored for its name, and hooks that cannot run, in a definition.

    `known` has the names that may stand in series/, arch/ and device/; without it all may. Raises
    DataError.
    """
    _check_layer(folder, [*PARTS, *_VARIANTS], beside=["definition.toml"])
    for variant in _VARIANTS:
        _refuse_strays(folder / variant, ())
        for layer in _folders(folder / variant):
            names = None if known is None else known[variant]
            if names is not None and layer.name not in names:
                raise DataError(
                    f"'{layer}' is for {variant} '{layer.name}', which the definition lacks",
                    hint=_nearest(layer.name, names),
                )
            _check_layer(layer, list(PARTS))


def _check_layer(layer: Path, parts: Sequence[str], *, beside: Sequence[str] = ()) -> None:
    _refuse_strays(layer, beside)
    for folder in _folders(layer):
        if folder.name not in parts:
            raise DataError(
                f"'{folder}' is no part of a definition", hint=_nearest(folder.name, parts)
            )
        if folder.name not in PARTS:
            continue
        endings = PARTS[folder.name]
        _refuse_kinds(folder, endings)
        for name, path in files([layer], folder.name).items() if endings else ():
            if not _fits(folder, name):
                raise DataError(
                    f"'{path}' would be ignored for its name",
                    hint="names end with " + " or ".join(endings),
                )
            if folder.name == "archives" and not _APT_NAME.fullmatch(name):
                raise DataError(
                    f"apt would ignore '{path}' for its name", hint="use letters, digits and _.+-"
                )
            if not path.is_file():
                raise DataError(f"'{path}' leads to no file", hint="correct the link, or remove it")
            if folder.name == "hooks" and not path.stat().st_mode & 0o100:
                raise DataError(f"hook '{path}' cannot be run", hint=f"run: chmod +x {path}")


def _fits(part: Path, name: str) -> bool:
    endings = PARTS[part.name]
    return name in endings if part.name == "ids" else name.endswith(tuple(endings))


def _refuse_strays(place: Path, known: Sequence[str]) -> None:
    """Refuse files in a place for folders, but for what is there for people and for git."""
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.name in known or path.name.startswith((".", *_FOR_PEOPLE)):
            continue
        if not path.is_dir():
            parts = [part for part, endings in PARTS.items() if path.name.endswith(tuple(endings))]
            raise DataError(
                f"'{path}' would be ignored where it is",
                hint=f"move it to {' or '.join(parts)}/" if parts else "move it, or remove it",
            )


def _refuse_kinds(part: Path, endings: Sequence[str]) -> None:
    """Refuse what is neither a file nor a folder, and a folder with the name of a file."""
    for path in sorted(part.rglob("*")):
        if path.is_symlink() or path.is_file():
            continue
        if not path.is_dir():
            raise DataError(
                f"'{path}' is neither a file nor a folder nor a link",
                hint="remove it, and make it in a hook where the tree needs it",
            )
        if endings and _fits(part, str(path.relative_to(part))):
            raise DataError(
                f"'{path}' is a folder, where a file is expected", hint="rename it, or remove it"
            )


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        found = (path for path in place.iterdir() if not path.name.startswith("."))
        yield from sorted(path for path in found if path.is_dir())


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else "known are " + ", ".join(names)
