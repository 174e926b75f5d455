"""What an archive would install, made up."""

from datetime import UTC, datetime

from coreimage.rootfs.archives.archive import Package, Suite


def package(name: str, *, size: int = 1, sha256: str = "0" * 64) -> Package:
    """Return a package of version 1 for every architecture."""
    return Package(
        name=name,
        version="1",
        architecture="all",
        file=f"{name}_1_all.deb",
        uri=f"http://mirror.example/debian/pool/{name}_1_all.deb",
        size=size,
        sha256=sha256,
    )


def suite(name: str, day: int = 23) -> Suite:
    """Return a suite that was published on a day of November 2026."""
    return Suite(
        uri="http://mirror.example/debian/",
        suite=name,
        sha256="0" * 64,
        date=datetime(2026, 11, day, tzinfo=UTC),
    )
