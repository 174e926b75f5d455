"""Spaces: where on a disk a file system is to be."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """`size` bytes of the file `image`, from `start` on, all of them zeros at first."""

    image: Path
    size: int
    start: int = 0

    @property
    def for_e2fsprogs(self) -> str:
        """What names it to e2fsprogs."""
        return f"{self.image}?offset={self.start}"

    @property
    def for_mtools(self) -> str:
        """What names it to mtools, whose paths end where "@@" begins."""
        return f"{self.image}@@{self.start}"
