"""Software bills of materials: the packages of a build for programs that look for known flaws.

CycloneDX 1.6 as JSON (ECMA-424), which does not vary: the same build gives the same bytes. Package
URLs are those of purl's type "deb"; `upstream` names the source package, as scanners expect it.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parseaddr
from importlib.metadata import version

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from coreimage.rootfs.packages.installed import InstalledPackage

# The name space of our serial numbers: they are uuid5 over what was built.
_SERIALS = uuid.UUID("2f0c7a3e-6f0d-5d0e-9d43-6c1f5d0b6a57")
_SOURCE = "coreimage:source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a bill of materials tells about a build; `artifacts` are digests by file name.

    `digests` are the sha256 of .deb files by name, version and architecture, and `licences` the
    names of what a package's copyright file declares, by package.
    """

    name: str
    title: str
    distribution: str
    release: str
    series: str
    arch: str
    made_at: datetime
    packages: Sequence[InstalledPackage]
    artifacts: Mapping[str, str]
    digests: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    licences: Mapping[str, Sequence[str]] = field(default_factory=dict)


def bill_of_materials(contents: Contents) -> str:
    """Return the CycloneDX document of a build."""
    product = Component(
        name=contents.name,
        version=contents.release,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"{contents.name}-{contents.release}-{contents.arch}",
        description=f"{contents.title} {contents.release} ({contents.series}), {contents.arch}",
        components=[
            Component(name=name, type=ComponentType.FILE, bom_ref=name, hashes=[_sha256(digest)])
            for name, digest in contents.artifacts.items()
        ],
    )
    tool = Component(name="coreimage", version=version("coreimage"), type=ComponentType.APPLICATION)
    parts = {package: _component(package, contents) for package in contents.packages}
    bom = Bom(
        serial_number=_serial(contents),
        metadata=BomMetaData(
            timestamp=contents.made_at, component=product, tools=ToolRepository(components=[tool])
        ),
        components=parts.values(),
    )
    bom.register_dependency(product, parts.values())
    for package, needed in _dependencies(contents.packages):
        bom.register_dependency(parts[package], [parts[each] for each in needed])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _dependencies(
    packages: Sequence[InstalledPackage],
) -> Iterator[tuple[InstalledPackage, list[InstalledPackage]]]:
    """Yield each package with those that meet its dependencies, all of several that could."""
    providers: dict[str, list[InstalledPackage]] = {}
    for package in packages:
        for name in (package.name, *package.provides):
            providers.setdefault(name, []).append(package)
    for package in packages:
        found = {
            each
            for name in package.depends
            for each in providers.get(name, ())
            if each is not package and _fits(each.architecture, package.architecture)
        }
        yield package, sorted(found, key=lambda each: (each.name, each.architecture))


def _fits(provider: str, package: str) -> bool:
    return provider == package or "all" in (provider, package)


def _serial(contents: Contents) -> uuid.UUID:
    lines = [f"{digest} {name}" for name, digest in sorted(contents.artifacts.items())]
    identity = [contents.name, contents.release, contents.arch, contents.made_at.isoformat()]
    return uuid.uuid5(_SERIALS, "\n".join([*identity, *lines]))


def _component(package: InstalledPackage, contents: Contents) -> Component:
    digest = contents.digests.get((package.name, package.version, package.architecture))
    purl = package_url(package, distribution=contents.distribution, series=contents.series)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        supplier=_supplier(package.maintainer),
        description=package.summary or None,
        hashes=[_sha256(digest)] if digest else (),
        licenses=[
            DisjunctiveLicense(name=name, acknowledgement=LicenseAcknowledgement.DECLARED)
            for name in contents.licences.get(package.name, ())
        ],
        external_references=_references(package.homepage),
        properties=[Property(name=_SOURCE, value=f"{package.source} {package.source_version}")],
    )


def package_url(package: InstalledPackage, *, distribution: str, series: str) -> PackageURL:
    """Return the package URL of a package, with its source where that is called otherwise."""
    qualifiers = {"arch": package.architecture, "distro": series}
    if (package.source, package.source_version) != (package.name, package.version):
        same = package.source_version == package.version
        qualifiers["upstream"] = (
            package.source if same else f"{package.source}@{package.source_version}"
        )
    return PackageURL(
        type="deb",
        namespace=distribution,
        name=package.name,
        version=package.version,
        qualifiers=qualifiers,
    )


def _supplier(maintainer: str) -> OrganizationalEntity | None:
    name, address = parseaddr(maintainer)
    if not name:
        return None
    contact = OrganizationalContact(name=name, email=address) if "@" in address else None
    return OrganizationalEntity(name=name, contacts=[contact] if contact else ())


def _references(homepage: str) -> Iterable[ExternalReference]:
    # A homepage is free text to dpkg, an IRI to CycloneDX.
    if re.fullmatch(r"https?://[\x21-\x7e]+", homepage):
        yield ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(homepage))


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
