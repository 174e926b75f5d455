"""The command `cron.daily-preinstalled`: an image set a day, as its environment says."""

import os
import sys
from typing import Annotated

import typer

from coreimage.cli.console import WorkspaceOption, guarded

app = typer.Typer(
    name="cron.daily-preinstalled",
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
def daily_preinstalled(
    live: Annotated[
        bool, typer.Option("--live", help="Build the root file systems first.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Publish an image set of a project, as its environment says.

    PROJECT is the definition; for-project sets it. DIST is a series or release, ARCHES a list of
    architectures; by default they are the definition's own, the architectures those that run on
    this machine. An architecture may name one of the definition's devices, as in armhf+raspi2.
    EXTRA_PPAS lists further archives as OWNER/NAME or OWNER/NAME:PRIORITY. SUBPROJECT=system-image
    moves the kernel into a device tarball, as channels of devices need it; with none, or without
    it, the kernel stays in the root file system. PROPOSED=1 takes packages also from the suites in
    which the release tries its updates. CHANNEL names a channel that the set is imported into: one
    that takes nothing of the set is refused at once. DEBUG=1 shows all that the builds say.

    A set has one build id. It is published when at least one architecture was built; the exit
    code is 3 when another one failed. The complaints and last lines of each failed build are on
    stderr, and its files are carried over from the publication before. Without --live, sets that
    were built and not published are published.

    Example: SUBPROJECT=system-image for-project ubuntu-core cron.daily-preinstalled --live
    """
    from coreimage import imageset
    from coreimage.cli.console import report
    from coreimage.cli.space import host_arch, load_space
    from coreimage.cli.watch import Watch
    from coreimage.errors import CoreImageError
    from coreimage.farm import executor
    from coreimage.farm.trigger import extra_archives, parse_trigger

    trigger = parse_trigger(os.environ)
    space, watch = load_space(workspace), Watch()

    def complain(target: str, error: CoreImageError) -> None:
        watch.clear()
        print(f"coreimage: {target} was not built", file=sys.stderr)
        report(error)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        outcome = imageset.make_set(
            space,
            imageset.Order(
                project=trigger.project,
                release=trigger.dist,
                arches=trigger.arches,
                subproject=trigger.subproject,
                channel=trigger.channel,
                extra_archives=extra_archives(trigger),
            ),
            when=imageset.When.ALWAYS if live else imageset.When.NEVER,
            host=host_arch(),
            progress=watch,
            echo=say if trigger.debug else watch.line,
            complain=complain,
            command=executor.rootfs_argv,
        )
    finally:
        watch.clear()
    for each in outcome.published:
        print(space.publications / each.path)
    for device, image in outcome.imports.items():
        print(f"{device}\tversion {image.version}\t{'new' if image.changed else 'unchanged'}")
    complaint = outcome.complaint()
    if complaint is not None:
        raise complaint
    if not outcome.published:
        watch.note("nothing was built that is not published yet")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(app, "cron.daily-preinstalled"))
