"""Application packages: read, checked, and put on `writable` with the units of their services."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.own.appinfo import AppInfo, parse_app
from coreimage.flasher.own.units import unit_name, unit_text
from coreimage.flasher.packagefile import package_stream
from coreimage.flasher.packageyaml import PACKAGE_YAML
from coreimage.flasher.provision import HOME
from coreimage.flasher.tree.staging import Kind, Limits, Staging
from coreimage.flasher.tree.unpack import Route, unpack
from coreimage.lib import files
from coreimage.lib.fetch import open_regular

_LIMITS = Limits(entries=50_000, size=2 << 30)
_SPECIAL_BITS = 0o7000
_EXECUTABLE = 0o111
UNITS = f"{HOME}/units"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPackage:
    """A package that was read and checked; `digest` is over all of its files."""

    info: AppInfo
    tree: Staging
    digest: str

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.info.name} {self.info.version}"

    def install(self, target: Staging) -> None:
        """Put it to apps/<name>/<version>, a link `current` to that, and its units beside."""
        home = f"apps/{self.info.name}"
        for path, entry in self.tree.entries.items():
            place = f"{home}/{self.info.version}/{path}".rstrip("/")
            if entry.kind is Kind.DIRECTORY:
                target.put_directory(place)
            elif entry.kind is Kind.SYMLINK:
                target.put_symlink(place, entry.target)
            else:
                mode = 0o755 if entry.mode & _EXECUTABLE else 0o644
                with (self.tree.root / path).open("rb") as content:
                    target.put_file(place, content, mode=mode)
        target.put_symlink(f"{home}/current", self.info.version)
        for binary in self.info.binaries:
            name = f"{self.info.name}.{binary.command}"
            target.put_symlink(f"apps/bin/{name}", f"../{self.info.name}/current/{binary.path}")
        for service in self.info.services:
            name = unit_name(self.info, service)
            target.put_file(f"{UNITS}/{name}", unit_text(self.info, service).encode())
            target.put_symlink(f"{UNITS}/multi-user.target.wants/{name}", f"../{name}")


def read_app(path: Path, *, arch: str, scratch: Path) -> AppPackage:
    """Read a package, a folder, an archive of it or a click container, and check it.

    Raises DataError that names file and key, NotFoundError when there is nothing at `path`. Its
    files are copied to the new directory `scratch`.
    """
    if not path.exists():
        raise NotFoundError(
            f"there is no package '{path}'",
            hint="--install takes the path of a folder with meta/package.yaml, of a tar of it, or "
            "of a .snap of 2015",
        )
    tree = Staging(scratch, limits=_LIMITS)
    if path.is_dir():
        _copy_folder(path, tree)
    else:
        everything = Route(staging=tree, keep_name=True)
        with (
            open_regular(path) as file,
            package_stream(file, name=str(path), scratch=scratch.parent) as stream,
        ):
            unpack(stream, archive=str(path), routes={}, default=everything)
    source = f"{path}: {PACKAGE_YAML}"
    try:
        text = tree.file(PACKAGE_YAML).read_bytes()
    except NotFoundError:
        raise DataError(f"package '{path}' has no {PACKAGE_YAML}") from None
    info = parse_app(text, source=source)
    if not info.runs_on(arch):
        raise DataError(f"{source}: the package is not for {arch}, which the OEM package is for")
    _check_files(tree, str(path))
    _check_programs(info, tree, source)
    return AppPackage(info=info, tree=tree, digest=_digest(tree))


def _copy_folder(root: Path, tree: Staging) -> None:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            tree.put_symlink(name, str(path.readlink()))
        elif path.is_dir():
            tree.put_directory(name)
        elif path.is_file():
            with open_regular(path) as content:
                tree.put_file(name, content, mode=path.stat().st_mode & 0o7777)
        else:
            raise DataError(f"package '{root}': '{name}' is neither file, folder nor link")


def _check_files(tree: Staging, name: str) -> None:
    for path, entry in tree.entries.items():
        if entry.kind is Kind.SYMLINK and not _stays_inside(path, entry.target):
            raise DataError(f"package '{name}': the link '{path}' leads out of it")
        if entry.kind is Kind.FILE and entry.mode & _SPECIAL_BITS:
            raise DataError(
                f"package '{name}': '{path}' would run with the rights of another user",
                hint="take its set-user-id and set-group-id bits away",
            )


def _stays_inside(path: str, target: str) -> bool:
    depth = path.count("/")
    if target.startswith("/"):
        return False
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


def _check_programs(info: AppInfo, tree: Staging, source: str) -> None:
    wanted = [
        (f"services.{number}.{key}", command[0])
        for number, service in enumerate(info.services)
        for key, command in service.commands.items()
    ]
    wanted += [(f"binaries.{number}", each.path) for number, each in enumerate(info.binaries)]
    for where, path in wanted:
        if not re.fullmatch(r"[A-Za-z0-9._+-][A-Za-z0-9._+/-]*", path) or ".." in path.split("/"):
            raise DataError(f"{source}: '{where}': '{path}' is no path of a file of the package")
        try:
            found = tree.file(path).relative_to(tree.root).as_posix()
        except NotFoundError:
            raise DataError(f"{source}: '{where}': the package has no file '{path}'") from None
        if not tree.entries[found].mode & _EXECUTABLE:
            raise DataError(
                f"{source}: '{where}': '{path}' is not executable", hint=f"chmod +x {path}"
            )


def _digest(tree: Staging) -> str:
    total = hashlib.sha256()
    for path, entry in sorted(tree.entries.items()):
        content = files.sha256_of(tree.root / path) if entry.kind is Kind.FILE else entry.target
        executable = entry.kind is Kind.FILE and bool(entry.mode & _EXECUTABLE)
        total.update(f"{path}\0{entry.kind}\0{executable:d}\0{content}\n".encode())
    return total.hexdigest()
