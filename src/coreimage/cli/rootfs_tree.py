"""Built trees on the command line: finding them, and pinning their accounts."""

from pathlib import Path

from coreimage.cli.space import load_space
from coreimage.errors import CoreImageError, NotFoundError


def built_tree(target: str, workspace: Path | None) -> Path:
    """Return the tree or tarball that is meant; raises NotFoundError.

    Of a folder of artifacts, or of a publication, it is the rootfs tarball.
    """
    path = Path(target)
    if path.exists():
        return _tarball_in(path) or path
    if target.isdigit():
        from coreimage.farm import queue
        from coreimage.farm.folder import folder_of

        space = load_space(workspace)
        artifacts = folder_of(space, int(target)).artifacts
        for found in sorted(artifacts.glob("livecd.*.rootfs.tar.gz")):
            return found
        queue.get(space, int(target))
        raise NotFoundError(
            f"build {target} has no rootfs tarball",
            hint="'coreimage build list' shows the builds and their states",
        )
    raise NotFoundError(
        f"there is no tree or tarball '{target}'", hint="name one, or the number of a build"
    )


def _tarball_in(folder: Path) -> Path | None:
    found = sorted(
        each
        for pattern in ("livecd.*.rootfs.tar.gz", "*-preinstalled-*.tar.gz")
        for each in folder.glob(pattern)
        if not each.name.endswith(".device.tar.gz")
    )
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise NotFoundError(f"'{folder}' has several root file systems", hint=f"name one: {names}")
    return found[0] if found else None


def write_pins(folder: Path, lines: dict[str, list[str]]) -> None:
    """Write the pins of a tree into a folder; CoreImageError when there are some already."""
    for name in lines:
        if (folder / name).exists():
            raise CoreImageError(
                f"'{folder / name}' is there already", hint="choose another --output, or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in each))
