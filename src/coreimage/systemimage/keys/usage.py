"""What keys have signed of what is published: one that is in use cannot go."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import CoreImageError
from coreimage.lib import openpgp
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import sums
from coreimage.systemimage.tree import layout

_PAYLOAD = (KeyringType.IMAGE_SIGNING, KeyringType.DEVICE_SIGNING)


def signed_with(root: Path) -> Mapping[str, int]:
    """Return how many files of a channel tree each key has signed, by fingerprint.

    States that are no longer visible do not count, nor does what is not published yet: that gets
    its signature, or another one, when it is.
    """
    counts: Counter[str] = Counter()
    for path in root.rglob("*.asc"):
        inside = path.relative_to(root).parts
        hidden = any(each.startswith(".") for each in inside)
        if not path.is_symlink() and not hidden and inside[0] != "states":
            counts[layout.signer_of(path.with_suffix(""))] += 1
    for path in (root / "state").glob("**/*.asc"):
        counts[layout.signer_of(path.with_suffix(""))] += 1
    return counts


def require_unused(workspace: Workspace, keys: Mapping[KeyringType, str]) -> None:
    """Raise CoreImageError when something published is signed by one of `keys`, by level.

    Only who holds the tree can rely on the answer.
    """
    for level, fingerprint in keys.items():
        if level not in _PAYLOAD:
            continue
        count = signed_with(workspace.channel_tree)[fingerprint]
        count += sums.count_signed(workspace, fingerprint)
        if count:
            raise CoreImageError(
                f"{count} published files are signed by the key {openpgp.key_id(fingerprint)}, and "
                "would be refused",
                hint="sign them again with 'coreimage image resign'; --force breaks them",
            )
