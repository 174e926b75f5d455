"""What dpkg's database says is installed.

Source of the format: deb-control(5), and "Status" in dpkg(1).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from debian.deb822 import Deb822

from coreimage.errors import DataError

_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]+)")
_SOURCE = re.compile(r"(?P<name>\S+)(?:\s+\((?P<version>[^)]+)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPackage:
    """A package of a tree; `source` and `source_version` are those of what it was built from.

    `depends` are the names that it cannot do without, alternatives too; `provides` those that it
    goes by besides its own.
    """

    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    maintainer: str
    homepage: str
    summary: str
    multi_arch: str
    depends: Sequence[str] = ()
    provides: Sequence[str] = ()

    @property
    def shown(self) -> str:
        """The name as dpkg shows it: with the architecture where several could be there."""
        return f"{self.name}:{self.architecture}" if self.multi_arch == "same" else self.name


def installed(status: bytes) -> Iterator[InstalledPackage]:
    """Yield the packages of dpkg's status file; raises DataError for unfinished ones."""
    for fields in Deb822.iter_paragraphs(status.decode(errors="replace"), use_apt_pkg=False):
        name, state = fields.get("Package", ""), fields.get("Status", "")
        if state != "install ok installed":
            if state.endswith(("not-installed", "config-files")):
                continue
            raise DataError(f"package '{name}' of the built tree is '{state}'")
        version = fields.get("Version", "")
        source = _SOURCE.match(fields.get("Source", ""))
        yield InstalledPackage(
            name=name,
            version=version,
            architecture=fields.get("Architecture", ""),
            source=source["name"] if source else name,
            source_version=(source and source["version"]) or version,
            maintainer=fields.get("Maintainer", ""),
            homepage=fields.get("Homepage", ""),
            summary=fields.get("Description", "").partition("\n")[0],
            multi_arch=fields.get("Multi-Arch", ""),
            depends=_names(fields.get("Pre-Depends", ""), fields.get("Depends", "")),
            provides=_names(fields.get("Provides", "")),
        )


def _names(*relations: str) -> Sequence[str]:
    """Return the names of packages in fields of relations, whatever version they ask for."""
    words = (word for each in relations for word in re.split("[,|]", each))
    return tuple(sorted({found[1] for word in words if (found := _NAME.match(word))}))
