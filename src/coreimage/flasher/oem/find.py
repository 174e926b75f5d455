"""Finding an OEM package: a path, a name in the workspace or among the shipped ones, a store."""

from collections.abc import Sequence
from pathlib import Path

import coreimage
from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.flasher.oem.package import OemPackage, load_oem, read_oem
from coreimage.flasher.remote.server import Server
from coreimage.lib import fresh
from coreimage.lib.progress import Progress
from coreimage.model.index import ImageFile
from coreimage.model.keyring import KeyringType
from coreimage.model.store import DEFAULT_STORE, StoreIndex, check_store_id, index_path

DEFAULT_OEM = "generic-amd64"
_PAIR_ATTEMPTS = 3
_SUFFIXES = ("", ".tar.gz", ".tar.xz", ".tar.zst", ".snap")


def shipped_folder() -> Path:
    """Return where our own packages lie: inside the installed package, or beside the sources."""
    home = Path(coreimage.__file__).parent
    installed = home / "data/oem"
    return installed if installed.is_dir() else home.parents[1] / "oem"


def local_oem(name: str, *, folders: Sequence[Path]) -> Path | None:
    """Return the path of a package: a path as it is, else the first of that name in `folders`.

    Returns None for a name that is in none of them; raises NotFoundError for a path that leads
    nowhere.
    """
    if "/" in name or name.endswith(_SUFFIXES[1:]):
        if Path(name).exists():
            return Path(name)
        raise NotFoundError(f"there is no OEM package '{name}'")
    for folder in folders:
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.exists():
                return path
    return None


def local_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of the packages in these folders."""
    return sorted({_package_name(path) for folder in folders for path in _entries(folder)})


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def _package_name(path: Path) -> str:
    for suffix in _SUFFIXES[1:]:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def find_oem(
    name: str,
    *,
    folders: Sequence[Path],
    server: Server | None,
    store: str | None,
    progress: Progress,
) -> OemPackage:
    """Return a package that was read and checked.

    A path is taken as it is. A name is looked for in `folders` and then in the server's default
    store; with `store` in that one alone. `NAME=VERSION` asks for a version of a store. Raises
    NotFoundError that names the packages there are.
    """
    plain, _, version = name.partition("=")
    if store is None or "/" in name:
        path = None if version else local_oem(name, folders=folders)
        if path is not None:
            return load_oem(path)
    known = [] if store else local_names(folders)
    if server is not None:
        try:
            index = store_index(server, store or DEFAULT_STORE)
        except NotFoundError:
            if store is not None:
                raise
        else:
            known += [each.name for each in index.packages]
            entry = index.find(plain, version or None)
            if entry is not None:
                return _fetched(server, entry.image_file, entry.name, entry.version, progress)
    raise missing_oem(name, known)


def missing_oem(name: str, known: Sequence[str]) -> NotFoundError:
    """Return the error for a name that is nowhere."""
    return NotFoundError(
        f"there is no OEM package '{name}'",
        hint="the OEM packages are " + ", ".join(f"'{each}'" for each in sorted(set(known)))
        if known
        else "give the path of a folder with meta/package.yaml, or of a tar.xz of it",
    )


def store_index(server: Server, store: str) -> StoreIndex:
    """Return the verified index of a store; NotFoundError when the server has no such store.

    Raises TrustError when it is another store's, has expired, or is older than one seen before.
    """
    path = index_path(check_store_id(store))
    try:
        text, signed_by = _verified(server, path)
    except NotFoundError as error:
        raise NotFoundError(
            f"the server has no store '{store}'",
            hint="publish packages there with 'coreimage oem publish --store ID'",
        ) from error
    index = StoreIndex.from_json(text)
    if index.store != store:
        raise TrustError(f"'{path}' says that it is of store '{index.store}', not '{store}'")
    fresh.accept_store(
        index,
        text,
        chain=server.chain,
        directory=server.memory.directory,
        signed_by=signed_by,
        clock=server.memory.clock,
    )
    return index


def _verified(server: Server, path: str) -> tuple[bytes, str]:
    for attempt in range(_PAIR_ATTEMPTS, 0, -1):
        file = server.source.metadata(path)
        try:
            signature = server.source.metadata(f"{path}.asc")
        except NotFoundError as error:
            raise TrustError(f"'{path}' has no signature: {error.message}") from error
        try:
            level = KeyringType.IMAGE_SIGNING
            signed = server.chain.verify(file, signature, level=level, what=path)
        except TrustError:
            # The store may have been published to between our two requests.
            if attempt == 1:
                raise
        else:
            return file.read_bytes(), signed.fingerprint
    raise AssertionError


def _fetched(
    server: Server, file: ImageFile, name: str, version: str, progress: Progress
) -> OemPackage:
    with server.source.payload(file, progress) as opened:
        try:
            signature = server.source.metadata(file.signature)
        except NotFoundError as error:
            raise TrustError(f"'{file.path}' has no signature: {error.message}") from error
        level = KeyringType.IMAGE_SIGNING
        server.chain.verify(opened, signature, level=level, what=file.path)
        opened.seek(0)
        package = read_oem(opened, name=file.path)
    if (package.info.name, package.info.version) != (name, version):
        raise DataError(
            f"'{file.path}' is {package.info.name} {package.info.version}, not {name} {version}"
        )
    return package
