"""The command `coreimage disk`: what is on a disk, and whether it is as it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli import flash_options
from coreimage.cli.console import (
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    progress,
)
from coreimage.cli.flash_place import oem_folders, place_of
from coreimage.errors import DataError, NotFoundError

if TYPE_CHECKING:
    from coreimage.flasher.inspect.show import DiskFacts
    from coreimage.flasher.options import FlashOptions

app = typer.Typer(help="Look at disks and verify them.", no_args_is_help=True)

DiskArgument = Annotated[
    Path, typer.Argument(help="A disk image of any format, or a device.", show_default=False)
]


@app.command()
def show(disk: DiskArgument, *, as_json: JsonOption = False) -> None:
    """Show layout, slots with their versions, what starts next, and who may log in.

    Example: coreimage disk show x86.img
    """
    from coreimage.flasher.inspect.show import look

    with _raw(disk) as (raw, _):
        facts = look(raw)
    if as_json:
        print_json(_fields(facts))
        return
    rows = [
        [each.name, str(each.start), f"{each.size / (1 << 20):g} MiB", _content(facts, each.name)]
        for each in facts.layout.partitions
    ]
    kind = f"{facts.layout.table}, sectors of {facts.layout.sector_size} bytes"
    print_table(f"{disk}: {kind}", ["partition", "first byte", "size", "content"], rows)
    print(f"table: {kind}")
    for line in _install_lines(facts):
        print(line)
    for field, value in facts.boot.items():
        print(f"{field}: {value}")
    for line in _login_lines(facts):
        print(line)


@app.command()
def verify(
    disk: DiskArgument,
    *,
    oem: Annotated[
        str | None,
        typer.Option(help="The OEM package, if it is not found by name.", show_default=False),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="The store that it comes from.", show_default=False)
    ] = None,
    server: flash_options.ServerOption = None,
    archive_master: flash_options.ArchiveMasterOption = None,
    tls_skip_verify: flash_options.TlsOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a disk against what the server's signed index says that it should be.

    The version that the disk says it has is downloaded, verified, and made into a disk again, which
    is compared: the partition table, the boot files, and every byte of slot a. What a running
    system changes is left out: the boot loader's variables, slot b and the partition `writable`.
    The exit code is 1 when something differs.

    Example: coreimage disk verify x86.img
    """
    from coreimage.flasher.disk.newdisk import new_disk
    from coreimage.flasher.flash import make_disk
    from coreimage.flasher.inspect.show import look
    from coreimage.flasher.inspect.verify import compare
    from coreimage.flasher.plan import planned

    report = progress()
    with _raw(disk) as (raw, scratch):
        facts = look(raw)
        home, place = place_of(
            workspace,
            server,
            archive_master,
            scratch=Path.cwd(),
            verify_tls=not tls_skip_verify,
        )
        options = _options(disk, facts, oem=oem, store=store, folders=oem_folders(home))
        with planned(options, place, progress=report, now=datetime.now(UTC)) as job:
            plan, wanted = job.plan, job.scratch / "wanted.img"
            with new_disk(wanted, size=plan.layout.size) as new:
                parts = make_disk(job, new, progress=report)
            found = compare(
                raw, wanted, facts=facts, layout=plan.layout, parts=parts, scratch=scratch
            )
    if as_json:
        print_json(
            {
                "channel": plan.channel,
                "version": plan.image.version,
                "differences": [{"where": each.where, "what": each.what} for each in found],
            }
        )
    elif found:
        print("\n".join(f"{each.where}: {each.what}" for each in found))
    else:
        print(f"'{disk}' is version {plan.image.version} of '{plan.channel}', every byte of it")
    if found:
        raise typer.Exit(1)


def _options(
    disk: Path, facts: "DiskFacts", *, oem: str | None, store: str | None, folders: list[Path]
) -> "FlashOptions":
    """Return the options that the disk was made with, as it tells them itself."""
    from coreimage.flasher.inspect.verify import access_of
    from coreimage.flasher.options import FlashOptions

    install = facts.install
    if install is None:
        raise DataError(f"'{disk}' has no install.yaml: it was not made by this tool")
    if not install.options.channel:
        raise DataError(
            f"'{disk}' is not from a channel: nothing is signed that it could be compared with"
        )
    if facts.slots["a"].version != str(install.version):
        raise DataError(
            f"'{disk}' was made with version {install.version}, slot a has "
            f"{facts.slots['a'].version or 'none'} now",
            hint="what an update has written cannot be compared byte by byte",
        )
    return FlashOptions(
        release="",
        channel=install.options.channel,
        output=disk,
        oem=oem or install.options.oem,
        oem_folders=folders,
        store=store,
        device=install.meta.device or None,
        exact_size=install.size,
        revision=install.version,
        access=access_of(facts),
        download_only=True,
        again=install.again(),
    )


@contextmanager
def _raw(disk: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the raw disk of an image, and a scratch directory."""
    from coreimage.flasher.media.formats import as_raw
    from coreimage.lib.files import scratch_directory

    if not disk.exists():
        raise NotFoundError(f"there is no disk '{disk}'")
    parent = Path.cwd() if disk.is_block_device() else disk.absolute().parent
    with scratch_directory(parent) as scratch, as_raw(disk, scratch=scratch) as raw:
        yield raw, scratch


def _install_lines(facts: "DiskFacts") -> list[str]:
    """Return what install.yaml says, a line each."""
    if facts.install is None:
        return []
    return [
        f"{part}: {key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for part, fields in facts.install.fields().items()
        for key, value in fields.items()
    ]


def _login_lines(facts: "DiskFacts") -> list[str]:
    """Return who may log in by SSH; keys mean nothing where there is no SSH."""
    found = [
        f"may log in: {user}, by {key.fingerprint} {key.comment}".rstrip()
        for user, keys in facts.keys.items()
        for key in keys
    ]
    return found if found and facts.ssh else ["may log in by SSH: nobody"]


def _content(facts: "DiskFacts", name: str) -> str:
    slot = facts.slots.get(name.removeprefix("system-"))
    if slot is None:
        return ""
    if not slot.version:
        return "empty"
    return f"version {slot.version} {slot.channel}".rstrip()


def _fields(facts: "DiskFacts") -> dict[str, Any]:
    return {
        "table": facts.layout.table.value,
        "sector_size": facts.layout.sector_size,
        "size": facts.layout.size,
        "partitions": [
            {"name": each.name, "start": each.start, "size": each.size}
            for each in facts.layout.partitions
        ],
        "install": facts.install.fields() if facts.install else None,
        "slots": {
            name: {"version": each.version, "channel": each.channel, "device": each.device}
            for name, each in facts.slots.items()
        },
        "boot": dict(facts.boot),
        "ssh": facts.ssh,
        "developer_mode": facts.developer_mode,
        "ssh_keys": [key.fingerprint for keys in facts.keys.values() for key in keys],
        "logins": {user: [key.fingerprint for key in keys] for user, keys in facts.keys.items()},
    }
