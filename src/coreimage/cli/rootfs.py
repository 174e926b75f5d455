"""coreimage rootfs: build root filesystems by hand, without the farm."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table, progress
from coreimage.cli.space import find_space, host_arch

if TYPE_CHECKING:
    from coreimage.config import ArchiveSettings, Workspace
    from coreimage.rootfs.definition import Selection
app = typer.Typer(help="Root filesystems and their definitions.", no_args_is_help=True)

ReleaseOption = Annotated[
    str | None,
    typer.Option(help="The release, such as 13 or trixie; by default the definition's own."),
]
ArchOption = Annotated[
    str, typer.Option(help="The architecture.", default_factory=host_arch, show_default="this one")
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
    return found.model_copy(update={"mirror": mirror, "security_mirror": None})


@app.command("list")
def list_definitions(as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the definitions that can be built.

    Example: coreimage rootfs list
    """
    from coreimage.rootfs.definition import definition_names, definition_places, load

    space = find_space(workspace)
    places = definition_places(space.root if space else None)
    found = [load(name, places)[0] for name in definition_names(places)]
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    print_table(
        "Definitions",
        ["name", "releases", "architectures", "title"],
        [
            [
                each.name,
                ", ".join(f"{number} ({of.series})" for number, of in each.releases.items()),
                ", ".join(each.architectures),
                each.title,
            ]
            for each in found
        ],
    )


@app.command()
def build(
    definition: Annotated[str, typer.Argument(help="The definition, such as debian-core.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A directory to be made.")],
    arch: ArchOption,
    release: ReleaseOption = None,
    mirror: Annotated[str | None, typer.Option(help="The package mirror to use.")] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Build a root filesystem and a device tarball into a directory.

    SOURCE_DATE_EPOCH decides about time stamps when it is set; else the date of the archive does.

    Example: coreimage rootfs build debian-core --release 13 --arch amd64 --output out
    """
    import tempfile

    from coreimage.config import CompressionSettings
    from coreimage.rootfs import build as rootfs
    from coreimage.rootfs.definition import definition_places, select

    found = find_space(workspace)
    places = definition_places(found.root if found else None)
    selection = select(definition, release, arch, places)
    level = (found.settings.compression if found else CompressionSettings()).gzip
    report = progress()
    report.stage(f"Resolving {selection.definition.title} {selection.release_name} for {arch}")
    cache = found.cache if found else Path(tempfile.gettempdir())
    inputs = rootfs.gather(selection, archive_settings(found, selection, mirror), cache)
    report.note(
        f"{len(inputs.resolution.packages)} packages, {inputs.resolution.size / 1e6:.0f} MB, "
        f"archive of {inputs.resolution.published_at:%Y-%m-%d %H:%M} UTC"
    )
    report.stage("Building the root filesystem")
    built = rootfs.build(inputs, output, gzip_level=level, progress=report)
    if as_json:
        print_json({"output": output, "fingerprint": built.fingerprint, "sha256": built.sha256})
        return
    for name, digest in built.sha256.items():
        print(f"{digest}  {output / name}")
