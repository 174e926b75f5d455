"""coreimage flash: from a channel to a bootable disk image."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli import flash_options as options
from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    progress,
)
from coreimage.cli.flash_launch import asking_for_kvm
from coreimage.cli.flash_machine import access_of, own_of
from coreimage.cli.flash_place import forget_downloads, oem_folders, place_of, warn_unfresh
from coreimage.cli.flash_query import query
from coreimage.errors import UsageError

if TYPE_CHECKING:
    from coreimage.config import Workspace
    from coreimage.flasher.local import LocalWish
    from coreimage.flasher.options import Medium
    from coreimage.flasher.plan import FlashJob
    from coreimage.lib.progress import Progress


class ImageFormat(StrEnum):
    """What --format takes; the names are those of flasher.media.formats."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"


app = typer.Typer(help="Make bootable disk images from channels.", no_args_is_help=True)


@app.command()
def core(
    release: Annotated[
        str | None,
        typer.Argument(help="The release, such as 13 or 24.04.", show_default=False),
    ] = None,
    *,
    channel: Annotated[
        str, typer.Option(help="The channel; with slashes, its full name.")
    ] = "stable",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The disk image to make; by default core-RELEASE-CHANNEL.img.",
            show_default=False,
        ),
    ] = None,
    oem: Annotated[
        str,
        typer.Option(
            help="The OEM package: a name, NAME=VERSION of a store, or the path of a folder or"
            " archive."
        ),
    ] = "generic-amd64",
    store: Annotated[
        str | None,
        typer.Option(
            help="The id of the store that the OEM package comes from; by default it is looked for"
            " in the workspace, among the shipped ones and in the server's default store.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="The device of the channel, such as raspi2_armhf; by default generic_ARCH, for the"
            " OEM package's architecture.",
            show_default=False,
        ),
    ] = None,
    rootfs: Annotated[
        str | None,
        typer.Option(
            help="A root file system of this machine in place of a channel's image: a tarball, a"
            " folder, the id of a build, or a publication such as debian-core/trixie/20261123.",
            show_default=False,
        ),
    ] = None,
    device_part: Annotated[
        str | None,
        typer.Option(
            help="A device tarball of this machine, or the id of a build to take it from.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            "-s",
            help="Size of the disk in GB. [default: 4; with --write that of the card]",
            min=4,
            show_default=False,
        ),
    ] = None,
    image_format: Annotated[
        ImageFormat | None,
        typer.Option(
            "--format",
            help="The format of the disk image; by default what its suffix says, else raw. A raw"
            " image whose name ends in .zst or .xz is compressed.",
            show_default=False,
        ),
    ] = None,
    bmap: Annotated[
        bool,
        typer.Option("--bmap", "--sparse", help="Write a block map for bmaptool beside the image."),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write a card, such as /dev/sdX, in place of a file, and read it back.",
            show_default=False,
        ),
    ] = None,
    yes_i_know: Annotated[
        bool,
        typer.Option("--yes-i-know", help="Write over a device that is fixed or mounted, too."),
    ] = False,
    enable_ssh: Annotated[bool, typer.Option("--enable-ssh", help="Start the SSH server.")] = False,
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A public key file that may log in by SSH, as 'core' or as --user; repeatable.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str, typer.Option(help="Whose the keys are: the image's user, or one more of that name.")
    ] = "core",
    hostname: Annotated[
        str | None, typer.Option(help="The name of the machine.", show_default=False)
    ] = None,
    network: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="How it reaches networks: a file of systemd-networkd, NAME.network, or of"
            " netplan, NAME.yaml; repeatable.",
            show_default=False,
        ),
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A systemd credential for its services, readable by root alone; repeatable.",
            show_default=False,
        ),
    ] = None,
    cloud_init: Annotated[
        Path | None,
        typer.Option(
            metavar="USER_DATA",
            help="User data for cloud-init, if the image has that.",
            show_default=False,
        ),
    ] = None,
    install: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PACKAGE",
            help="A package for the machine: the path of a folder with meta/package.yaml, of a tar"
            " of it, or of a .snap of 2015; repeatable.",
            show_default=False,
        ),
    ] = None,
    developer_mode: Annotated[
        bool,
        typer.Option(
            "--developer-mode",
            help="Enable SSH; without --ssh-key, make a key pair beside the image.",
        ),
    ] = False,
    revision: options.RevisionOption = None,
    server: options.ServerOption = None,
    download_only: options.DownloadOnlyOption = False,
    clean_cache: options.CleanCacheOption = False,
    tls_skip_verify: options.TlsOption = False,
    allow_unfresh: options.UnfreshOption = False,
    archive_master: options.ArchiveMasterOption = None,
    workspace: WorkspaceOption = None,
    verbose: options.VerboseOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a disk image of a release of core.

    With --rootfs a local build is flashed without any server.

    Example: coreimage flash core 13 --channel edge --output x86.img
    """
    from coreimage.flasher import summary
    from coreimage.flasher.options import FlashOptions
    from coreimage.flasher.plan import planned

    report = progress()
    if release is None and rootfs is None:
        raise UsageError(
            "this needs a release, or a root file system of this machine",
            hint="give a release such as 13, or --rootfs",
        )
    target = output or _default_output(release, channel, image_format)
    medium = _medium(target, image_format, bmap=bmap, card=write, accepted=yes_i_know)
    if write is not None and output is not None:
        raise _no_file()
    home, place = place_of(
        workspace,
        server,
        archive_master,
        scratch=target.parent,
        verify_tls=not tls_skip_verify,
        allow_unfresh=allow_unfresh,
        trusted=rootfs is None,
    )
    if clean_cache:
        forget_downloads(place, report)
    with ExitStack() as stack:
        who = access_of(
            ssh_key or [],
            enable_ssh=enable_ssh,
            developer_mode=developer_mode,
            user=user,
            target=None if dry_run or download_only else target,
            scratch=place.scratch,
        )
        access, private_key = stack.enter_context(who)
        wish = FlashOptions(
            release=release or "",
            channel=channel,
            output=target,
            oem=oem,
            store=store,
            device=device,
            oem_folders=oem_folders(home),
            size=size,
            revision=revision,
            access=access,
            download_only=download_only,
            install=install or [],
            own=own_of(hostname, network or [], credential or [], cloud_init),
            medium=medium,
            local=_local(home, rootfs, device_part),
        )
        job = stack.enter_context(planned(wish, place, progress=report, now=datetime.now(UTC)))
        if job.server is not None:
            warn_unfresh(job.server, report)
        if verbose and not dry_run:
            for line in summary.plan_lines(job.plan):
                report.note(line)
        lines = _carry_out(
            job, report, dry_run=dry_run, download_only=download_only, private_key=private_key
        )
    if as_json:
        print_json(summary.plan_fields(job.plan))
    else:
        print("\n".join(lines))


app.command()(query)


def _default_output(release: str | None, channel: str, form: ImageFormat | None) -> Path:
    last = channel.rpartition("/")[2]
    suffix = "img" if form in (None, ImageFormat.RAW) else form
    return Path(f"core-{release or 'local'}-{last}.{suffix}".replace("/", "-"))


def _medium(
    target: Path,
    image_format: ImageFormat | None,
    *,
    bmap: bool,
    card: Path | None,
    accepted: bool,
) -> "Medium":
    from coreimage.flasher.media.formats import Format, form_of
    from coreimage.flasher.options import Medium

    if card is not None and (image_format or bmap):
        raise _no_file()
    form = form_of(target, Format(image_format) if image_format else None)
    return Medium(form=form, bmap=bmap, card=card, accepted=accepted)


def _no_file() -> UsageError:
    return UsageError("--write makes no file", hint="leave out --output, --format and --bmap")


def _local(home: "Workspace | None", rootfs: str | None, device_part: str | None) -> "LocalWish":
    from coreimage.flasher.local import LocalWish

    return LocalWish(
        rootfs=rootfs,
        device_part=device_part,
        builds=home.builds if home else None,
        publications=home.publications if home else None,
    )


def _carry_out(
    job: "FlashJob",
    report: "Progress",
    *,
    dry_run: bool,
    download_only: bool,
    private_key: Path | None,
) -> Sequence[str]:
    """Do what was planned and return what to say about it."""
    from coreimage.flasher import summary
    from coreimage.flasher.flash import fetch_only, flash

    if dry_run:
        return summary.plan_lines(job.plan)
    if download_only:
        size = fetch_only(job, progress=report)
        return [f"Verified {len(job.plan.image.files)} files, {size / 1e6:.2f} MB"]
    if job.plan.access.nobody and not job.plan.own.user_data:
        report.note("nobody will be able to log in: give a key with --ssh-key FILE.pub")
    with asking_for_kvm(wanted=summary.launcher(job.plan, kvm=True) == "kvm") as kvm_works:
        flash(job, progress=report)
        program = summary.launcher(job.plan, kvm=kvm_works())
    return summary.summary_lines(job.plan, program=program, private_key=private_key)
