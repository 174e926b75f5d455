"""What a person asks for when they flash."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.flasher.local import NOTHING_LOCAL, LocalWish
from coreimage.flasher.media.formats import PLAIN, Form
from coreimage.flasher.own.machine import NOTHING_OWN, Own
from coreimage.flasher.provision import NO_ACCESS, Access

GIGABYTE = 10**9
DEFAULT_SIZE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What the disk becomes: a file of some form, with a block map beside it, or a card.

    A `card` is written over as far as `accepted` and what is known of it allow.
    """

    form: Form = PLAIN
    bmap: bool = False
    card: Path | None = None
    accepted: bool = False


A_FILE = Medium()


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What a disk tells of itself that cannot be derived from its parts again.

    `tool` is the version of the tool that made it. Without a seed it is that of the parts.
    """

    tool: str
    seed: bytes
    packages: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOptions:
    """What a person asks for; `size` is in GB of 10^9 bytes, `revision` as in Index.full.

    Without a device it is the generic one of the package's architecture. Without a size it is the
    smallest, or that of the card which is written; `exact_size`, in bytes, is taken before both.
    `install` are packages that `own` does not have yet. With `again`, it is to be the same as
    another one, beside what that has of its own.
    """

    release: str
    channel: str
    output: Path
    oem: str
    oem_folders: Sequence[Path]
    store: str | None = None
    device: str | None = None
    size: int | None = None
    exact_size: int | None = None
    revision: int | None = None
    access: Access = NO_ACCESS
    download_only: bool = False
    local: LocalWish = NOTHING_LOCAL
    medium: Medium = A_FILE
    install: Sequence[Path] = ()
    own: Own = NOTHING_OWN
    again: Again | None = None
