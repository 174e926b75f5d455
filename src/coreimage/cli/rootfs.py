"""coreimage rootfs: build root filesystems by hand, without the farm."""

from pathlib import Path
from typing import Annotated

import typer

from coreimage.cli.console import (
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    progress,
)
from coreimage.cli.rootfs_diff import print_difference, side_of
from coreimage.cli.rootfs_options import (
    ArchOption,
    DefinitionArgument,
    DeviceOption,
    ExtraOption,
    IdsOption,
    MirrorOption,
    NoCacheOption,
    ReleaseOption,
    SubprojectOption,
    archive_settings,
    build_cache,
    extra_archives,
    given_options,
)
from coreimage.cli.rootfs_tree import built_tree, write_pins
from coreimage.cli.space import find_space, host_arch

app = typer.Typer(help="Root filesystems and their definitions.", no_args_is_help=True)


@app.command("list")
def list_definitions(as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the definitions that can be built.

    Example: coreimage rootfs list
    """
    from coreimage.rootfs.definitions.definition import definition_names, definition_places, load

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
    context: typer.Context,
    definition: DefinitionArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A directory to be made.")],
    arch: ArchOption,
    release: ReleaseOption = None,
    device: DeviceOption = None,
    subproject: SubprojectOption = None,
    mirror: MirrorOption = None,
    extra_archive: ExtraOption = None,
    no_cache: NoCacheOption = False,
    ids_of: IdsOption = None,
    locked: Annotated[
        Path | None,
        typer.Option(help="Build what this lock names once more, or say what has changed."),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Build a root filesystem and a device tarball into a directory.

    SOURCE_DATE_EPOCH decides about time stamps when it is set; else the newest package does. With
    --locked, release, architecture, device, subproject and time are those of the lock; options that
    say otherwise are refused.

    Example: coreimage rootfs build debian-core --release 13 --arch amd64 --output out
    """
    from coreimage.config import CompressionSettings
    from coreimage.lib.arches import require_buildable
    from coreimage.rootfs import build as rootfs
    from coreimage.rootfs.definitions.definition import definition_places, select
    from coreimage.rootfs.reuse.lock import read_lock
    from coreimage.rootfs.reuse.locking import gzip_level_of, locked_inputs, refuse_otherwise

    found = find_space(workspace)
    places = definition_places(found.root if found else None)
    report = progress()
    cache = build_cache(found)
    lock = read_lock(locked) if locked else None
    if lock is not None:
        of = lock.definition
        refuse_otherwise(
            str(locked),
            asked={
                "definition": definition,
                **given_options(context, ("release", "arch", "device", "subproject")),
            },
            locked={
                "definition": [of.name],
                "release": [of.release, of.series],
                "arch": [of.arch],
                "device": [of.device],
                "subproject": [of.subproject],
            },
        )
        release, arch, device, subproject = of.release, of.arch, of.device, of.subproject
    selection = select(definition, release, arch, places, device, subproject=subproject)
    require_buildable(arch, host=host_arch())
    settings = archive_settings(found, selection, mirror)
    extras = extra_archives(extra_archive, found, selection)
    if lock is not None:
        level = gzip_level_of(lock)
        inputs = locked_inputs(lock, selection, settings, extras=extras)
    else:
        level = (found.settings.compression if found else CompressionSettings()).gzip
        report.stage(f"Resolving {selection.definition.title} {selection.release_name} for {arch}")
        inputs = rootfs.gather(selection, settings, cache.folder, extras=extras)
    report.note(
        f"{len(inputs.resolution.packages)} packages, {inputs.resolution.size / 1e6:.0f} MB, "
        f"archive of {inputs.resolution.published_at:%Y-%m-%d %H:%M} UTC"
    )
    report.stage("Building the root filesystem")
    built = rootfs.build(
        inputs,
        output,
        gzip_level=level,
        progress=report,
        cache=cache,
        fresh=no_cache,
        earlier=ids_of,
    )
    if as_json:
        print_json(
            {
                "output": output,
                "fingerprint": built.fingerprint,
                "sha256": built.sha256,
                "reused": built.reused,
            }
        )
        return
    for name, digest in built.sha256.items():
        print(f"{digest}  {output / name}")


@app.command("explain-cache")
def explain_cache(
    definition: DefinitionArgument,
    arch: ArchOption,
    release: ReleaseOption = None,
    device: DeviceOption = None,
    subproject: SubprojectOption = None,
    mirror: MirrorOption = None,
    extra_archive: ExtraOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Say what a build would use again, and which input has changed where it would not.

    Nothing is built. Of several earlier builds, the one that differs least is compared with.

    Example: coreimage rootfs explain-cache debian-core
    """
    from dataclasses import asdict

    from coreimage.config import CompressionSettings
    from coreimage.rootfs.build import gather
    from coreimage.rootfs.definitions.definition import definition_places, select
    from coreimage.rootfs.reuse.cache import explain

    found = find_space(workspace)
    places = definition_places(found.root if found else None)
    selection = select(definition, release, arch, places, device, subproject=subproject)
    cache = build_cache(found)
    inputs = gather(
        selection,
        archive_settings(found, selection, mirror),
        cache.folder,
        extras=extra_archives(extra_archive, found, selection),
    )
    level = (found.settings.compression if found else CompressionSettings()).gzip
    verdicts = explain(
        cache,
        inputs.resolution.packages,
        stage=inputs.package_recipe(),
        image=inputs.image_recipe(level),
    )
    if as_json:
        print_json([asdict(each) for each in verdicts])
        return
    for each in verdicts:
        print(f"{each.stage}: {'hit' if each.hit else 'miss'}")
        for line in each.differences:
            print(f"  {line}")


@app.command()
def plan(
    definition: DefinitionArgument,
    arch: ArchOption,
    release: ReleaseOption = None,
    device: DeviceOption = None,
    subproject: SubprojectOption = None,
    mirror: MirrorOption = None,
    extra_archive: ExtraOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Print what a build would run: archives with keys and pins, hooks, command, files.

    Nothing is downloaded, built or written.

    Example: coreimage rootfs plan debian-core --release 13
    """
    import os
    import tempfile
    from datetime import UTC, datetime

    from coreimage.rootfs.archives.archive import find_archive
    from coreimage.rootfs.build import expected_files
    from coreimage.rootfs.definitions.definition import definition_places, select
    from coreimage.rootfs.describe import describe_plan, plan_lines
    from coreimage.rootfs.plan import plan_build, step_lines

    found = find_space(workspace)
    places = definition_places(found.root if found else None)
    selection = select(definition, release, arch, places, device, subproject=subproject)
    extras = extra_archives(extra_archive, found, selection)
    settings = archive_settings(found, selection, mirror)
    with tempfile.TemporaryDirectory() as scratch:
        archive = find_archive(selection, settings, Path(scratch), extras)
    planned = plan_build(
        selection,
        archive,
        as_root=os.geteuid() == 0,
        published_at=datetime.fromtimestamp(0, UTC),
        scratch=Path(),
        temporary=Path(),
    )
    described = describe_plan(selection, archive, planned, files=expected_files(selection))
    if as_json:
        print_json(described)
        return
    for line in plan_lines(described, step_lines(planned)):
        print(line)


@app.command()
def show(
    definition: DefinitionArgument,
    arch: ArchOption,
    release: ReleaseOption = None,
    device: DeviceOption = None,
    subproject: SubprojectOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show a definition with all that it extends, and which file each part comes from.

    Example: coreimage rootfs show debian-core --release 13
    """
    from coreimage.rootfs.definitions.definition import definition_places, read_sources, select
    from coreimage.rootfs.describe import describe_selection, selection_lines

    found = find_space(workspace)
    places = definition_places(found.root if found else None)
    selection = select(definition, release, arch, places, device, subproject=subproject)
    described = describe_selection(selection, read_sources(definition, places))
    if as_json:
        print_json(described)
        return
    for line in selection_lines(described):
        print(line)


@app.command()
def schema() -> None:
    """Print the JSON Schema of definition.toml, for editors.

    Example: coreimage rootfs schema > definition.schema.json
    """
    from coreimage.rootfs.definitions.definition import json_schema

    print_json(json_schema())


@app.command()
def shell(
    target: Annotated[
        str, typer.Argument(help="A tree, a rootfs tarball, or the number of a build.")
    ],
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run instead of a shell, after '--'.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Open a shell in a built tree, without starting the system.

    A tarball is unpacked into a scratch room that is removed afterwards; a tree is entered as it
    is.

    Example: coreimage rootfs shell 7 -- cat /etc/os-release
    """
    from coreimage.rootfs.tree.shell import open_shell

    raise typer.Exit(open_shell(built_tree(target, workspace), command or ["/bin/sh"]))


@app.command("ids")
def show_ids(
    target: Annotated[
        str, typer.Argument(help="A tree, a rootfs tarball, or the number of a build.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write passwd and group into this folder: a definition's ids/."
        ),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Print the users and groups of a built tree, in the lines that pin them in a definition.

    Files that are there already are not replaced.

    Example: coreimage rootfs ids 7 --output workspace/definitions/kiosk/series/noble/ids
    """
    from coreimage.rootfs.definitions.ids import pin_lines
    from coreimage.rootfs.tree.accounts import accounts_of

    lines = pin_lines(*accounts_of(built_tree(target, workspace)))
    if output is not None:
        write_pins(output, lines)
    if as_json:
        print_json(lines)
    elif output is None:
        for name, each in lines.items():
            print(f"# ids/{name}", *each, sep="\n")


@app.command()
def diff(
    before: Annotated[
        str,
        typer.Argument(help="A build's number, a folder of artifacts, or PROJECT/SERIES/BUILD-ID."),
    ],
    after: Annotated[str, typer.Argument(help="The other one.")],
    arch: Annotated[
        str | None,
        typer.Option(
            help="The architecture, where a publication has several; a device as in armhf.raspi2."
        ),
    ] = None,
    debs: Annotated[
        list[Path] | None,
        typer.Option(
            "--debs", help="A folder with .deb files, for their changelogs. May be repeated."
        ),
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="List every file that differs.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show what changed between two builds: packages, changelogs, files, sizes.

    Packages that went backwards come first, then those that fix flaws. Changelogs are those inside
    of .deb files that are here: nothing is downloaded. A file whose package did not change is
    listed by itself, rights first.

    Example: coreimage rootfs diff debian-core/trixie/current debian-core/trixie/pending
    """
    from coreimage.rootfs.diff.compare import compare
    from coreimage.rootfs.diff.report import describe
    from coreimage.rootfs.packages.changelog import debs_in

    sides = [side_of(each, arch, workspace) for each in (before, after)]
    space = find_space(workspace)
    places = [*(debs or []), *([space.cache / "packages"] if space else [])]
    difference = compare(*sides, debs=debs_in(places))
    if as_json:
        print_json(describe(difference))
    else:
        print_difference(difference, every_file=files)
