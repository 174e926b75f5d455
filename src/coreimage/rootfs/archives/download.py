"""Bringing packages: out of the store, and what it lacks from where apt found it."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from coreimage.errors import (
    CommandError,
    CoreImageError,
    NoSpaceError,
    TrustError,
    UnavailableError,
)
from coreimage.lib import run
from coreimage.lib.files import sha256_of
from coreimage.lib.progress import Progress
from coreimage.rootfs.archives.store import Store

_HELPER = "/usr/lib/apt/apt-helper"
# Well below the longest command line that Linux takes.
_BATCH = 200
_OPTIONS = {"Acquire::Retries": "3", "APT::Sandbox::User": "", "Dir::Etc::Main": "/dev/null"}


class Package(Protocol):
    """What must be known of a package to bring it."""

    @property
    def file(self) -> str:
        """The name of its file."""

    @property
    def uri(self) -> str:
        """Where it lies."""

    @property
    def sha256(self) -> str:
        """The digest of its file."""

    @property
    def size(self) -> int:
        """Its bytes."""


def bring(
    packages: Sequence[Package], folder: Path, *, store: Store, scratch: Path, progress: Progress
) -> list[Path]:
    """Put packages into a folder and return their paths, in the order of the packages.

    Each has the digest that was asked for. Raises UnavailableError and TrustError.
    """
    folder.mkdir()
    missing = store.take(packages, folder)
    size = sum(each.size for each in missing)
    have = len(packages) - len(missing)
    progress.note(f"packages: {have} from the cache, {len(missing)} to fetch, {size / 1e6:.0f} MB")
    if missing:
        fetch(missing, folder, scratch=scratch)
        store.add(missing, folder)
        store.trim([each.sha256 for each in packages])
    return [folder / each.file for each in packages]


def fetch(packages: Iterable[Package], folder: Path, *, scratch: Path) -> None:
    """Fetch packages by apt's own means, which compare digests; then compare them once more."""
    wanted = list(packages)
    config = scratch / "download.conf"
    (scratch / "no-parts").mkdir(exist_ok=True)
    options = {**_OPTIONS, "Dir::Etc::Parts": str(scratch / "no-parts")}
    config.write_text("".join(f'{key} "{value}";\n' for key, value in options.items()))
    env = {"APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
    for begin in range(0, len(wanted), _BATCH):
        words = [
            word
            for each in wanted[begin : begin + _BATCH]
            for word in (each.uri, str(folder / each.file), f"SHA256:{each.sha256}")
        ]
        try:
            run.run([_HELPER, "download-file", *words], env=env)
        except CommandError as error:
            raise _refusal(error.message) from error
    for each in wanted:
        _settle(folder / each.file, each)


def _settle(path: Path, package: Package) -> None:
    if path.is_symlink():  # what lies on this machine is linked to, not copied
        source = path.resolve()
        path.unlink()
        shutil.copyfile(source, path)
    found = sha256_of(path)
    if found != package.sha256:
        raise TrustError(
            f"package '{package.file}' has sha256 {found}, expected {package.sha256}",
            hint="the mirror is damaged or lies; try another one",
        )


def _refusal(message: str) -> CoreImageError:
    if "No space left on device" in message:
        return NoSpaceError(
            "no space for the packages", hint="free some space, or choose another place"
        )
    lines = [line for line in message.splitlines() if line.startswith("E: Failed")]
    said = "; ".join(line.removeprefix("E: ") for line in lines[:3]) or message
    if "Hash Sum mismatch" in message:
        return TrustError(
            f"a package is not what the archive has signed: {said}",
            hint="the mirror is damaged, or changes just now; try again, or another one",
        )
    return UnavailableError(
        f"packages cannot be fetched: {said}",
        hint="check the network and the mirror; 'archives' in coreimage.toml sets another one",
    )
