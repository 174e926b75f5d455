"""Files that images are made of: their names, their signatures, and where they came from.

A file's side-car, `.json` in place of `.tar.xz`, records what it was made from. Clients never
read it; the importer does, to see that nothing has changed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError
from coreimage.lib import files, trust
from coreimage.lib.fetch import check_digest
from coreimage.model.index import ImageFile
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import layout
from coreimage.systemimage.tree.transaction import Edit

SUFFIX = ".tar.xz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a file's bytes: two equal recipes give equal files.

    `source` and `sha256` are the input's name and digest, empty for generated files; `settings`
    are the ones that shape the bytes.
    """

    generator: str
    generator_version: int
    source: str
    sha256: str
    settings: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, int, str, Mapping[str, Any]]:
        """What is compared: an input that was renamed is the same input."""
        return self.generator, self.generator_version, self.sha256, dict(self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SideCar:
    """A file's record: its recipe, the publication, and what version_detail says of it."""

    recipe: Recipe
    publication: str
    version_detail: str

    def to_json(self) -> str:
        """Return the text of the side-car."""
        return json.dumps(asdict(self), indent=4, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "SideCar":
        """Parse a side-car; raises DataError."""
        try:
            fields = json.loads(text)
            return cls(
                recipe=Recipe(**fields["recipe"]),
                publication=str(fields["publication"]),
                version_detail=str(fields["version_detail"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"the side-car is malformed: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFile:
    """A file of an image: where it is published, and where it lies until then if it is new.

    `level` is whose key signs it.
    """

    path: str
    checksum: str
    size: int
    sidecar: SideCar
    staged: Path | None = None
    level: KeyringType = KeyringType.IMAGE_SIGNING

    def image_file(self, order: int) -> ImageFile:
        """Return the entry for an index."""
        return ImageFile(order=order, path=self.path, checksum=self.checksum, size=self.size)

    def publish(self, edit: Edit) -> None:
        """Hand a new file and its side-car to a transaction."""
        if self.staged is not None:
            sidecar = _sidecar_of(self.staged)
            edit.put_file(sidecar_path(self.path), sidecar, level=self.level)
            edit.put_file(self.path, self.staged, level=self.level)


def stage(
    made: Path, *, path: str, sidecar: SideCar, signer: SigningService, level: KeyringType
) -> PoolFile:
    """Sign a finished file and its side-car, ready to be published.

    `{sha256}` in the path stands for the file's own digest.
    """
    checksum = files.sha256_of(made)
    final = path.format(sha256=checksum)
    files.write_atomically(_sidecar_of(made), sidecar.to_json())
    for each, name in ((made, final), (_sidecar_of(made), sidecar_path(final))):
        signer.sign_published(each, Path(f"{each}.asc"), level=level, path=name)
    return PoolFile(
        path=final,
        checksum=checksum,
        size=made.stat().st_size,
        sidecar=sidecar,
        staged=made,
        level=level,
    )


def find(workspace: Workspace, file: ImageFile) -> PoolFile | None:
    """Return a published file with its side-car, or None when it is not there as the index says."""
    path = layout.local_path(workspace, file.path)
    sidecar = layout.local_path(workspace, sidecar_path(file.path))
    try:
        complete = path.stat().st_size == file.size and Path(f"{path}.asc").is_file()
        record = SideCar.from_json(sidecar.read_bytes())
    except (FileNotFoundError, DataError):
        return None
    if not complete:
        return None
    return PoolFile(path=file.path, checksum=file.checksum, size=file.size, sidecar=record)


class VanishedError(CoreImageError):
    """A published file that was to be used again has been removed meanwhile."""


def require_there(workspace: Workspace, file: PoolFile) -> None:
    """Raise VanishedError unless a file is new, or still published; the tree must be held."""
    path = layout.local_path(workspace, file.path)
    if file.staged is None and not (path.is_file() and Path(f"{path}.asc").is_file()):
        raise _vanished(file)


def _vanished(file: PoolFile) -> VanishedError:
    return VanishedError(
        f"'{file.path}' was removed while it was to be used again",
        hint="run the command again: it is made anew then",
    )


def require_intact(workspace: Workspace, file: PoolFile, chain: trust.Chain) -> None:
    """Raise TrustError unless a published file still has its digest and a good signature.

    Raises VanishedError when it is not there any more.
    """
    path = layout.local_path(workspace, file.path)
    try:
        with path.open("rb") as opened:
            signature = Path(f"{path}.asc")
            chain.verify(opened, signature, level=KeyringType.IMAGE_SIGNING, what=file.path)
            check_digest(opened, file.checksum, name=file.path)
    except FileNotFoundError as error:
        raise _vanished(file) from error


def remember(workspace: Workspace, file: PoolFile) -> None:
    """Note which file a recipe gave, for importers of other channels and devices.

    The note lies in the cache: it saves work, and nothing is believed because of it.
    """
    note = _note(workspace, _name_of(file.path), file.sidecar.recipe)
    note.parent.mkdir(parents=True, exist_ok=True)
    entry = {"path": file.path, "checksum": file.checksum, "size": file.size}
    files.write_atomically(note, json.dumps(entry))


def recall(workspace: Workspace, name: str, recipe: Recipe) -> PoolFile | None:
    """Return the published file that a recipe gave before, or None."""
    try:
        entry = json.loads(_note(workspace, name, recipe).read_bytes())
        found = find(workspace, ImageFile(order=0, **entry))
    except (OSError, ValueError, TypeError, DataError):
        return None
    same = found is not None and found.sidecar.recipe.identity == recipe.identity
    return found if same and _name_of(str(entry["path"])) == name else None


def _note(workspace: Workspace, name: str, recipe: Recipe) -> Path:
    identity = json.dumps([name, *recipe.identity], sort_keys=True).encode()
    return workspace.cache / "recipes" / f"{hashlib.sha256(identity).hexdigest()}.json"


def prefix_of(path: str) -> str:
    """Return what a file of images is called: /pool/rootfs-00.tar.xz is a rootfs."""
    return path.rsplit("/", 1)[-1].removesuffix(SUFFIX).rpartition("-")[0]


def _name_of(path: str) -> str:
    """Return what distinguishes files of one recipe: their prefix, of a delta its whole stem."""
    stem = path.rsplit("/", 1)[-1].removesuffix(SUFFIX)
    return stem if ".delta-" in stem else prefix_of(path)


def free_path(workspace: Workspace, file: "PoolFile") -> "PoolFile":
    """Return a new file under a path that no other bytes have: published files never change."""
    final = layout.local_path(workspace, file.path)
    if file.staged is None or not final.exists() or files.sha256_of(final) == file.checksum:
        return file
    folder, _, name = file.path.rpartition("/")
    return replace(file, path=f"{folder}/{file.checksum[:16]}/{name}")


def sidecar_path(path: str) -> str:
    """Return the published path of a file's side-car."""
    return f"{path.removesuffix(SUFFIX)}.json"


def _sidecar_of(made: Path) -> Path:
    return made.with_name(f"{made.name.removesuffix(SUFFIX)}.json")
