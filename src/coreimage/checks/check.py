"""A check: what was looked for, what was found, how to mend it."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Whether the road works with what was found; what is optional is for those who want it."""

    OK = "ok"
    OPTIONAL = "optional"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of a check. `mend` is an instruction; `packages` would mend it too."""

    name: str
    status: Status
    found: str
    mend: str = ""
    packages: tuple[str, ...] = ()

    def to_json(self) -> dict[str, str | list[str]]:
        """Return the check for machines."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "mend": self.mend,
            "packages": list(self.packages),
        }


def road_works(checks: Iterable[Check]) -> bool:
    """Tell whether nothing that is needed is missing."""
    return all(check.status is not Status.MISSING for check in checks)


def install_command(checks: Iterable[Check], *, as_root: bool) -> str:
    """Return the one command that installs every package that would help, or the empty string."""
    lacking = (check.packages for check in checks if check.status is not Status.OK)
    packages = sorted({package for packages in lacking for package in packages})
    if not packages:
        return ""
    return shlex.join([*([] if as_root else ["sudo"]), "apt-get", "install", *packages])
