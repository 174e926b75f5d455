"""Directories as values, to compare before and after; and a tree that has a shell."""

import shutil
from pathlib import Path

from coreimage.lib import files, run


def snapshot(root: Path) -> dict[str, str]:
    """Return what every path below `root` is: a directory, a link's target, a file's digest."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = files.sha256_of(path)
    return found


def small_tree(root: Path) -> Path:
    """Make a tree that is just enough for a shell: this machine's, with its libraries."""
    for program in ("sh", "cat", "ls", "sleep"):
        found = shutil.which(program)
        assert found is not None
        for path in (found, *_libraries(found)):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (root / "bin").mkdir(exist_ok=True)
    for program in ("sh", "cat", "ls", "sleep"):
        if not (root / "bin" / program).exists():
            (root / "bin" / program).symlink_to(f"..{shutil.which(program)}")
    (root / "etc").mkdir()
    (root / "etc/name").write_text("the tree\n")
    return root


def _libraries(program: str) -> list[str]:
    lines = run.run(["ldd", program]).stdout.decode().split()
    return [word for word in lines if word.startswith("/")]
