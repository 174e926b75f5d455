"""Signatures of publications after a key change: verified by the old key, made by the new one."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import TrustError
from coreimage.lib import openpgp, trust
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.signing.policy import Purpose
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import layout, renewal

_LEVEL = KeyringType.IMAGE_SIGNING
_SUMS = "SHA256SUMS"


def resign(workspace: Workspace, *, now: datetime, dry_run: bool = False) -> list[str]:
    """Sign the SHA256SUMS of each publication with the present key; return what was signed.

    Only what a key of the published keyring has signed is signed again; anything else stays as it
    is, and is refused at the import as before. What the present key has signed is left alone.
    """
    signer = SigningService(workspace)
    present = signer.fingerprint(_LEVEL)
    due = [path for path in _all_sums(workspace.publications) if issuer(path) != present]
    signed = []
    with layout.open_chain(workspace, now=now) as chain:
        for path in due:
            name = str(path.relative_to(workspace.publications))
            good = trust.is_good(chain, path, _signature(path), level=_LEVEL)
            if good and (dry_run or _renew(workspace, path, signer, name)):
                signed.append(name)
    return signed


def _renew(workspace: Workspace, path: Path, signer: SigningService, name: str) -> bool:
    def sign(signature: Path) -> None:
        signer.sign(path, signature, level=_LEVEL, purpose=Purpose.CHECKSUMS, name=name)

    return renewal.renew(
        workspace, _signature(path), sign=sign, present=lambda: signer.fingerprint(_LEVEL)
    )


def count_signed(workspace: Workspace, fingerprint: str) -> int:
    """Return how many publications a key has signed."""
    return sum(issuer(path) == fingerprint for path in _all_sums(workspace.publications))


def issuer(path: Path) -> str:
    """Return the key that a SHA256SUMS says it is signed by, empty when it is not signed."""
    try:
        return openpgp.issuer(_signature(path).read_bytes(), name=str(path))
    except (OSError, TrustError):
        return ""


def _signature(path: Path) -> Path:
    return path.with_name(f"{_SUMS}.gpg")


def _all_sums(tree: Path) -> Iterator[Path]:
    """Yield the checksums of the publications; links to one, such as `current`, are left out.

    So is what is under way, in a scratch folder: it gets its signature when it appears.
    """
    for path in sorted(tree.glob(f"[!.]*/[!.]*/[!.]*/[!.]*/{_SUMS}")):
        if not path.parent.is_symlink():
            yield path
