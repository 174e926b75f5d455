"""Manifests: which packages a tree holds, a line each, name and version separated by a tab."""

from collections.abc import Iterable, Mapping

from coreimage.errors import DataError
from coreimage.rootfs.packages.installed import InstalledPackage


def manifest(packages: Iterable[InstalledPackage]) -> str:
    """Return the manifest of a tree's packages; raises DataError when there are none."""
    lines = [f"{package.shown}\t{package.version}\n" for package in packages]
    if not lines:
        raise DataError("the built tree has no packages")
    return "".join(sorted(lines))


def read_manifest(text: str, *, name: str) -> Mapping[str, str]:
    """Return the versions by package of a manifest; raises DataError with the line."""
    versions: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        package, tab, version = line.partition("\t")
        if not (package and tab and version):
            raise DataError(f"{name}:{number}: '{line}' is not a package, a tab and a version")
        versions[package] = version
    return versions
