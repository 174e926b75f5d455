"""The command `coreimage oem`: packages that say what a board is and how it starts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
)
from coreimage.cli.space import find_space, load_space
from coreimage.errors import NotFoundError

if TYPE_CHECKING:
    from coreimage.config import Workspace
    from coreimage.flasher.oem.package import OemPackage
    from coreimage.model.store import StorePackage

app = typer.Typer(
    help="Build, publish and show OEM packages: what a board is, and how it starts.",
    no_args_is_help=True,
)

PackageArgument = Annotated[
    str, typer.Argument(help="A name, or the path of a folder or archive.", show_default=False)
]
LoaderOption = Annotated[
    bool,
    typer.Option(
        "--with-loader",
        help="Take this machine's GRUB into the package: disks are then the same wherever they "
        "are made.",
    ),
]
StoreOption = Annotated[str, typer.Option("--store", help="The id of the store.")]


@app.command()
def build(
    package: PackageArgument,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The archive to make; by default NAME_VERSION_ARCH.tar.xz here.",
            show_default=False,
        ),
    ] = None,
    with_loader: LoaderOption = False,
    workspace: WorkspaceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check an OEM package and make its archive, the same bytes whoever makes it.

    A package without a boot loader of its own gets GRUB of the machine that makes the disk.

    Example: coreimage oem build generic-amd64
    """
    from coreimage.flasher.oem.archive import archive_name, write_archive
    from coreimage.lib.files import sha256_of

    found = _load(package, find_space(workspace), with_loader=with_loader)
    target = output or Path(archive_name(found))
    if dry_run:
        print(f"{target}: {len(found.files)} files of {found.info.name} {found.info.version}")
        return
    write_archive(found, target)
    if as_json:
        print_json({**_facts(found), "path": str(target), "sha256": sha256_of(target)})
    else:
        print(target)


@app.command()
def publish(
    packages: Annotated[
        list[str],
        typer.Argument(help="Names, or paths of folders or archives.", show_default=False),
    ],
    *,
    store: StoreOption = "default",
    with_loader: LoaderOption = False,
    workspace: WorkspaceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish OEM packages in a store of the channel tree, signed.

    A version that was published never changes; publishing it again does nothing.

    Example: coreimage oem publish my-board --store factory
    """
    space = load_space(workspace)
    found = [_load(each, space, with_loader=with_loader) for each in packages]
    if dry_run:
        for each in found:
            print(f"store '{store}': {each.info.name} {each.info.version}")
        return
    results = [_publish(space, store, each) for each in found]
    if as_json:
        print_json([{**_entry(entry), "new": new} for entry, new in results])
    else:
        for entry, new in results:
            state = "new" if new else "unchanged"
            print(f"{entry.name}\t{entry.version}\t{state}\t{entry.path}")


def _publish(space: "Workspace", store: str, found: "OemPackage") -> "tuple[StorePackage, bool]":
    from coreimage.flasher.oem.archive import write_archive
    from coreimage.lib.files import scratch_directory
    from coreimage.systemimage import store as stores

    with scratch_directory(space.cache) as scratch:
        file = scratch / "package.tar.xz"
        write_archive(found, file)
        archive = stores.Archive(
            file=file,
            name=found.info.name,
            version=found.info.version,
            architecture=found.info.oem.hardware.architecture,
            description=found.info.description,
        )
        return stores.publish(space, store, archive, now=datetime.now(UTC))


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(help="The name of the package.", show_default=False)],
    version: Annotated[str, typer.Argument(help="The version.", show_default=False)],
    *,
    store: StoreOption = "default",
    workspace: WorkspaceOption = None,
) -> None:
    """Take a version out of a store: nobody finds it any more, disks that have it keep it.

    Example: coreimage oem withdraw my-board 1.1 --store factory
    """
    from coreimage.systemimage import store as stores

    entry = stores.withdraw(load_space(workspace), store, name, version, now=datetime.now(UTC))
    print(f"{entry.name}\t{entry.version}\twithdrawn")


@app.command()
def refresh(
    *,
    force: Annotated[bool, typer.Option("--force", help="Renew those too that last.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Renew the signed indexes of stores before they expire, 30 days after the last change.

    Example: coreimage oem refresh
    """
    from coreimage.systemimage import store as stores

    renewed = stores.refresh(load_space(workspace), now=datetime.now(UTC), force=force)
    print("\n".join(renewed) if renewed else "all stores are up to date")


@app.command(name="list")
def list_packages(
    *,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Only what is in this store.", show_default=False),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the OEM packages that are found by name: the workspace's, the shipped, the published.

    Example: coreimage oem list
    """
    from coreimage.systemimage import store as stores

    space = find_space(workspace)
    rows = [] if store else [_local_row(path) for path in _local_paths(space)]
    for each in [store] if store else stores.list_stores(space) if space else []:
        index = stores.read_store(space, each) if space else None
        if index is None:
            raise NotFoundError(
                f"there is no store '{each}' here", hint="make one with 'coreimage oem publish'"
            )
        rows += [{**_entry(package), "where": f"store '{each}'"} for package in index.packages]
    if as_json:
        print_json(rows)
        return
    columns = ["name", "version", "architecture", "where"]
    print_table("OEM packages", columns, [[row[column] for column in columns] for row in rows])


@app.command()
def show(
    package: PackageArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Show an OEM package: what it is for and what it puts where.

    Example: coreimage oem show generic-amd64
    """
    found = _load(package, find_space(workspace), with_loader=False)
    if as_json:
        print_json(_facts(found))
        return
    hardware = found.info.oem.hardware
    rows = [[key, str(value)] for key, value in _facts(found).items() if key != "files"]
    rows += [["boot file", f"{each.place} from {each.path}"] for each in hardware.boot_assets.files]
    rows += [
        ["raw file", f"{each.path} at byte {each.offset}"]
        for each in hardware.boot_assets.raw_files
    ]
    rows += [
        ["raw partition", f"{each.name} of {each.size >> 10} KiB"]
        for each in hardware.boot_assets.raw_partitions
    ]
    print_table(f"OEM package {found.info.name}", ["field", "value"], rows)


def _folders(space: "Workspace | None") -> Sequence[Path]:
    from coreimage.flasher.oem.find import shipped_folder

    return [*([space.root / "oem"] if space else []), shipped_folder()]


def _local_paths(space: "Workspace | None") -> Sequence[Path]:
    from coreimage.flasher.oem.find import local_names, local_oem

    folders = _folders(space)
    paths = [local_oem(name, folders=folders) for name in local_names(folders)]
    return [path for path in paths if path is not None]


def _load(package: str, space: "Workspace | None", *, with_loader: bool) -> "OemPackage":
    from tempfile import TemporaryDirectory

    from coreimage.flasher.disk import loader
    from coreimage.flasher.oem.find import local_names, local_oem, missing_oem
    from coreimage.flasher.oem.package import load_oem

    path = local_oem(package, folders=_folders(space))
    if path is None:
        raise missing_oem(package, local_names(_folders(space)))
    found = load_oem(path)
    if not with_loader:
        return found
    with TemporaryDirectory() as scratch:
        return loader.with_loader(found, scratch=Path(scratch))


def _local_row(path: Path) -> dict[str, Any]:
    from coreimage.flasher.oem.package import load_oem

    return {**_facts(load_oem(path)), "where": str(path)}


def _facts(found: "OemPackage") -> dict[str, Any]:
    info = found.info
    return {
        "name": info.name,
        "version": info.version,
        "vendor": info.vendor,
        "architecture": info.oem.hardware.architecture,
        "device": found.device,
        "bootloader": info.oem.hardware.bootloader,
        "digest": found.digest,
        "files": sorted(found.files),
    }


def _entry(entry: "StorePackage") -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "architecture": entry.architecture,
        "path": entry.path,
        "sha256": entry.sha256,
        "size": entry.size,
    }
