"""Parts: the files of the next image, each known by its recipe before anything slow is done."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.feeds import Feed, fill
from coreimage.lib import trust
from coreimage.lib.progress import Progress
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.tree.pool import PoolFile, SideCar


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of the next image.

    `name` begins its name in the pool, `sidecar` is its record. `title` describes an image whose
    main part it is; `mtime`, in UNIX seconds, is how old what it is made of is, where that is
    known. `make` makes the file: call it only when there is none of the same recipe yet.
    """

    name: str
    sidecar: SideCar
    make: Callable[[Maker], PoolFile]
    title: str = ""
    mtime: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an origin may use to find out what there is.

    `chain` has the server's own keyrings, `scratch` is an empty folder beside the tree, `memory`
    is what origins of the same import tell each other.
    """

    workspace: Workspace
    channel: str
    device: str
    arch: str
    feeds: Sequence[Feed]
    series: str | None
    product: str | None
    project: str | None
    accept: str
    chain: trust.Chain
    scratch: Path
    progress: Progress
    now: datetime
    memory: MutableMapping[Any, Any] = field(default_factory=dict)

    def fill(self, text: str, **values: str) -> str:
        """Return a text of a feed with its placeholders replaced."""
        return fill(text, {"device": self.device, "arch": self.arch, **values})

    def path(self, path: Path) -> Path:
        """Return a path of coreimage.toml: relative ones begin at the workspace."""
        return self.workspace.root / path
