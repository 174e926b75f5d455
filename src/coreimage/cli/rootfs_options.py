"""What commands about root file systems are told: options, and what they stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.space import host_arch
from coreimage.model.build import Subproject

if TYPE_CHECKING:
    from coreimage.config import ArchiveSettings, Workspace
    from coreimage.rootfs.archives.extra import ExtraArchive
    from coreimage.rootfs.definitions.definition import Selection
    from coreimage.rootfs.reuse.cache import Cache

ReleaseOption = Annotated[
    str | None,
    typer.Option(help="The release, such as 13 or trixie; by default the definition's own."),
]
ArchOption = Annotated[
    str, typer.Option(help="The architecture.", default_factory=host_arch, show_default="this one")
]

DefinitionArgument = Annotated[str, typer.Argument(help="The definition, such as debian-core.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="The device; by default the generic one of the architecture.")
]
BuiltDeviceOption = Annotated[
    str | None,
    typer.Option(
        help="A device of the definition, which tells the architecture; by default the generic "
        "one of the architecture."
    ),
]
SubprojectOption = Annotated[
    Subproject | None,
    typer.Option(
        help="system-image moves the kernel into a device tarball, none leaves it in the root file "
        "system; by default the definition decides."
    ),
]
IdsOption = Annotated[
    Path | None,
    typer.Option(
        "--ids-of",
        metavar="RECORD",
        help="Refuse users and groups that have other numbers than in this earlier build: its "
        "livecd.NAME.build.json.",
    ),
]
MirrorOption = Annotated[str | None, typer.Option(help="The package mirror to use.")]
NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Use nothing again of earlier builds but packages."),
]
ExtraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--extra-archive",
        metavar="NAME",
        help="One more archive: OWNER/NAME[:PIN] is a PPA, NAME[:PIN] one of coreimage.toml, "
        "proposed what the release tries before it is released. "
        "May be repeated.",
    ),
]


def archive_settings(
    workspace: "Workspace | None", selection: "Selection", mirror: str | None
) -> "ArchiveSettings":
    """Return where packages come from; a mirror on the command line wins."""
    from coreimage.config import ArchiveSettings

    archives = workspace.settings.archives if workspace else {}
    found = archives.get(selection.definition.distribution, ArchiveSettings())
    if mirror is None:
        return found
    others = dict.fromkeys(("security_mirror", "ports_mirror"))
    return found.model_copy(update={"mirror": mirror, **others})


def given_arch(name: str, arch: str | None, device: str | None, places: Sequence[Path]) -> str:
    """Return the architecture that was given, or else the device's, or else this machine's."""
    from coreimage.rootfs.definitions.definition import arch_of_device

    return arch or (device and arch_of_device(name, device, places)) or host_arch()


def given_options(context: typer.Context, names: Sequence[str]) -> dict[str, str]:
    """Return those of the named options that were given, not those that have their default."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {
        name: str(context.params[name])
        for name, source in sources.items()
        if source is not None and "DEFAULT" not in source.name
    }


def build_cache(workspace: "Workspace | None") -> "Cache":
    """Return the workspace's cache; without one, the user's own."""
    import os

    from coreimage.errors import RightsError
    from coreimage.rootfs.reuse.cache import Cache

    if workspace is not None:
        return Cache(folder=workspace.cache, settings=workspace.settings.cache)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "coreimage")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RightsError(
            f"there is no place for the cache: '{folder}': {error.strerror}",
            hint="set XDG_CACHE_HOME to a folder of yours, or work in a workspace",
        ) from error
    return Cache(folder=folder)


def extra_archives(
    names: list[str] | None, workspace: "Workspace | None", selection: "Selection"
) -> "list[ExtraArchive]":
    """Return the archives that the command line adds, described by coreimage.toml."""
    from coreimage.config import ArchiveSettings
    from coreimage.rootfs.archives.extra import named_archives

    archives = workspace.settings.archives if workspace else {}
    return named_archives(
        names or [],
        selection,
        settings=archives.get(selection.definition.distribution, ArchiveSettings()),
        configured=workspace.settings.extra_archives if workspace else {},
        root=workspace.root if workspace else Path.cwd(),
    )
