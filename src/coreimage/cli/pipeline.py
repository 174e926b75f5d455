"""coreimage pipeline: the whole road in one command."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, progress
from coreimage.cli.rootfs_options import BuiltDeviceOption, given_arch
from coreimage.cli.space import host_arch, load_space
from coreimage.cli.watch import Watch
from coreimage.errors import UsageError

if TYPE_CHECKING:
    from coreimage.config import Workspace
    from coreimage.lib.progress import Progress
    from coreimage.pipeline.road import RoadResult

app = typer.Typer(help="The road from packages to channels and disks.", no_args_is_help=True)


@app.command("run")
def run_road(
    project: Annotated[str, typer.Argument(help="The definition, such as debian-core.")],
    *,
    release: Annotated[
        str | None, typer.Option(help="The release; by default the definition's own.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="The architecture; by default this machine's.")
    ] = None,
    device: BuiltDeviceOption = None,
    channel: Annotated[str, typer.Option(help="The channel to publish in.")] = "edge",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also make this disk image.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if nothing changed.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Build what changed, publish it, import it into a channel, and make a disk of it.

    A disk of an older version gives way under another name, and is kept.

    Example: coreimage pipeline run debian-core --release 13 --channel edge --output x86.img
    """
    from coreimage.lib.arches import require_buildable
    from coreimage.pipeline import road
    from coreimage.rootfs.definitions.definition import definition_places

    if output is not None and device is not None:
        raise UsageError(
            f"--output makes the disk of a generic machine, not of '{device}'",
            hint="make it afterwards: coreimage flash core RELEASE --channel CHANNEL "
            "--device DEVICE --oem PACKAGE",
        )
    space, report = load_space(workspace), Watch()
    arch = given_arch(project, arch, device, definition_places(space.root))
    require_buildable(arch, host=host_arch())
    try:
        result = road.run_road(
            space,
            project=project,
            release=release,
            arch=arch,
            device=device,
            channel=channel,
            force=force,
            progress=report,
            echo=report.line,
        )
    finally:
        report.clear()
    if output is not None:
        _make_disk(space, result, output, report)
    if as_json:
        print_json(
            {
                "build": result.build.id,
                "build_id": result.build.request.version,
                "built": result.built,
                "channel": result.channel,
                "images": {name: each.version for name, each in result.imports.items()},
                "output": output,
            }
        )


@app.command()
def advance(workspace: WorkspaceOption = None) -> None:
    """Publish finished builds and import them into the channels of coreimage.toml.

    Example: coreimage pipeline advance
    """
    from coreimage.pipeline import road

    done = road.advance(load_space(workspace), progress=progress())
    for channel, imports in done.items():
        for device, each in imports.items():
            state = "new" if each.changed else "unchanged"
            print(f"{channel}\t{device}\tversion {each.version}\t{state}")


def _make_disk(space: "Workspace", result: "RoadResult", output: Path, report: "Progress") -> None:
    from coreimage.cli import flash
    from coreimage.flasher.inspect.install import read_install

    ((_, image),) = list(result.imports.items())[:1]
    if output.exists():
        found = read_install(output)
        if found and (found.options.channel, found.version) == (result.channel, image.version):
            print(
                f"'{output}' is up to date: version {image.version} of '{result.channel}'",
                file=sys.stderr,
            )
            return
        kept = _unused_name(output, found.version if found else "kept")
        output.rename(kept)
        report.note(f"the disk that was '{output}' is now '{kept}'")
    flash.core(
        result.build.request.release, channel=result.channel, output=output, workspace=space.root
    )


def _unused_name(output: Path, word: object) -> Path:
    stem = output.with_name(f"{output.stem}.{word}{output.suffix}")
    number = 1
    while stem.exists():
        number += 1
        stem = output.with_name(f"{output.stem}.{word}-{number}{output.suffix}")
    return stem
