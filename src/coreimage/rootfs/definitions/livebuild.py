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
_VARIANTS = ("series", "arch", "device")
# What apt reads of a folder of sources.
_APT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/-]*")


def layers(folders: Sequence[Path], *, series: str, arch: str, device: str) -> list[Path]:
    """Return the layers of definitions, the ones that win last."""
    chosen = ("", f"series/{series}", f"arch/{arch}", f"device/{device}")
    return [folder / part for folder in folders for part in chosen]


def files(layers: Sequence[Path], part: str) -> dict[str, Path]:
    """Return the files of a part by their name below it; of the same name the last one wins."""
    found: dict[str, Path] = {}
    for layer in layers:
        for path in sorted((layer / part).rglob("*")):
            if path.is_symlink() or path.is_file():
                found[str(path.relative_to(layer / part))] = path
    return dict(sorted(found.items()))


def check(folder: Path, *, known: Mapping[str, Sequence[str]] | None = None) -> None:
    """Refuse what would be ignored for its name, and hooks that cannot run, in a definition.

    `known` has the names that may stand in series/, arch/ and device/; without it all may. Raises
    DataError.
    """
    _check_layer(folder, [*PARTS, *_VARIANTS])
    for variant in _VARIANTS:
        for layer in _folders(folder / variant):
            names = None if known is None else known[variant]
            if names is not None and layer.name not in names:
                raise DataError(
                    f"'{layer}' is for {variant} '{layer.name}', which the definition lacks",
                    hint=_nearest(layer.name, names),
                )
            _check_layer(layer, list(PARTS))


def _check_layer(layer: Path, parts: Sequence[str]) -> None:
    for folder in _folders(layer):
        if folder.name not in parts:
            raise DataError(
                f"'{folder}' is no part of a definition", hint=_nearest(folder.name, parts)
            )
        endings = PARTS.get(folder.name, ())
        for name, path in files([layer], folder.name).items() if endings else ():
            fits = name in endings if folder.name == "ids" else name.endswith(tuple(endings))
            if not fits:
                raise DataError(
                    f"'{path}' would be ignored for its name",
                    hint="names end with " + " or ".join(endings),
                )
            if folder.name == "archives" and not _APT_NAME.fullmatch(name):
                raise DataError(
                    f"apt would ignore '{path}' for its name", hint="use letters, digits and _.+-"
                )
            if folder.name == "hooks" and not path.stat().st_mode & 0o100:
                raise DataError(f"hook '{path}' cannot be run", hint=f"run: chmod +x {path}")


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        found = (path for path in place.iterdir() if not path.name.startswith("."))
        yield from sorted(path for path in found if path.is_dir())


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else "known are " + ", ".join(names)
