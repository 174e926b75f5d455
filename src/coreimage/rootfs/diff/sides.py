"""The two sides of a comparison: where the files of a build lie, and which packages it has."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from coreimage.errors import DataError, NotFoundError
from coreimage.model.document import parse_object
from coreimage.model.publication import target_in
from coreimage.rootfs.diff.packages import PackageState
from coreimage.rootfs.packages.installed import installed
from coreimage.rootfs.packages.manifest import read_manifest

TARBALLS = {"rootfs": (".rootfs.tar.gz", ".tar.gz"), "device": (".device.tar.gz",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two builds: a name for people, and its files; tarballs and bill may be missing."""

    name: str
    manifest: Path
    rootfs: Path | None = None
    device: Path | None = None
    bill: Path | None = None

    def tarball(self, kind: str) -> Path | None:
        """Return the rootfs or the device tarball."""
        return self.rootfs if kind == "rootfs" else self.device


def find_side(folder: Path, *, name: str, arch: str | None) -> Side:
    """Return the build whose artifacts, or publication, lie in a folder.

    Of several architectures and devices `arch` names one, as in amd64 or armhf.raspi2. Raises
    NotFoundError.
    """
    found = sorted(folder.glob("*.manifest"))
    fitting = [each for each in found if arch is None or _is_of(each, arch)]
    if not fitting:
        arches = ", ".join(target_in(each.stem) for each in found)
        raise NotFoundError(
            f"'{folder}' holds no build" + (f" for '{arch}'" if arch and found else ""),
            hint=f"it has {arches}"
            if found
            else "name the number of a build, a folder of artifacts, or a publication",
        )
    if len(fitting) > 1:
        arches = ", ".join(target_in(each.stem) for each in fitting)
        raise NotFoundError(
            f"'{folder}' has builds for several architectures", hint=f"name one by --arch: {arches}"
        )
    stem = fitting[0].name.removesuffix(".manifest")
    bill = folder / f"{stem}.cdx.json"
    return Side(
        name=name,
        manifest=fitting[0],
        bill=bill if bill.is_file() else None,
        rootfs=_tarball(folder, stem, "rootfs"),
        device=_tarball(folder, stem, "device"),
    )


def _is_of(manifest: Path, arch: str) -> bool:
    # Artifacts of a build have no architecture in their names: there is but one.
    return manifest.name.startswith("livecd.") or target_in(manifest.stem) == arch


def _tarball(folder: Path, stem: str, kind: str) -> Path | None:
    paths = (folder / f"{stem}{ending}" for ending in TARBALLS[kind])
    return next((path for path in paths if path.is_file()), None)


def packages_of(side: Side, status: bytes) -> dict[str, PackageState]:
    """Return the packages of a build: as its manifest says, with what else is known of them.

    `status` is dpkg's database of its tree, which may be empty. Names come without architecture
    unless a package is there for several. Raises DataError.
    """
    text = side.manifest.read_text(encoding="utf-8")
    versions = read_manifest(text, name=str(side.manifest))
    known = {each.shown: each for each in installed(status)}
    digests = _digests(side.bill) if side.bill is not None else {}
    plain = Counter(name.partition(":")[0] for name in versions)
    states = {}
    for full, version in versions.items():
        found, name = known.get(full), full.partition(":")[0]
        digest, files = digests.get((name, version), ("", ()))
        state = PackageState(
            version=version,
            source=found.source if found else "",
            source_version=found.source_version if found else "",
            sha256=digest,
            files=files,
        )
        states[name if plain[name] == 1 else full] = state
    return states


def _digests(bill: Path) -> Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return sha256 and names of .deb files by package and version, of a bill of materials."""
    document = parse_object(bill.read_bytes(), name=str(bill))
    try:
        return {
            (each["name"], each["version"]): (each["hashes"][0]["content"], _file_names(each))
            for each in document.get("components", [])
            if each.get("hashes")
        }
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"'{bill}' is not a bill of materials: {error!r}") from error


def _file_names(component: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a .deb is called in an archive, and in apt's cache, which keeps the epoch."""
    version, url = component["version"], component["purl"]
    arch = dict(parse_qsl(url.partition("?")[2])).get("arch", "all")
    names = {version.partition(":")[2] or version, version.replace(":", "%3a")}
    return tuple(f"{component['name']}_{each}_{arch}.deb" for each in sorted(names))
