"""Renewal: a published file's signature gives way to one by the present key, and to no other."""

from collections.abc import Callable
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import TrustError
from coreimage.lib import files, openpgp
from coreimage.systemimage.tree import editing

_PURPOSE = "image resign"


def renew(
    workspace: Workspace,
    signature: Path,
    *,
    sign: Callable[[Path], None],
    present: Callable[[], str],
    still: Callable[[], bool] = lambda: True,
) -> bool:
    """Replace a signature by what `sign` writes, and return whether that was done.

    Signing may take long, and is done while others may change the tree. So the tree is held for a
    moment afterwards, and nothing is done when somebody else has replaced or removed the signature
    meanwhile, `present` is no longer the key that has signed, which may be gone by then, or things
    are not `still` as the caller took them to be.
    """
    try:
        before = signature.read_bytes()
        with files.scratch_directory(workspace.cache) as scratch:
            made = scratch / "made.asc"
            sign(made)
            text = made.read_bytes()
        with editing.locked(workspace, purpose=_PURPOSE):
            same = signature.read_bytes() == before and _issuer(text) == present()
            if not (same and still()):
                return False
            files.write_atomically(signature, text)
    except FileNotFoundError:  # removed meanwhile
        return False
    return True


def _issuer(text: bytes) -> str:
    try:
        return openpgp.issuer(text, name="the new signature")
    except TrustError:
        return ""
