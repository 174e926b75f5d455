"""The two sides of `coreimage rootfs diff`, and what is printed of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from coreimage.cli.console import print_section
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.rootfs.diff.compare import Difference
    from coreimage.rootfs.diff.sides import Side


def print_difference(difference: "Difference", *, every_file: bool) -> None:
    """Print what changed, the most important first."""
    from coreimage.rootfs.diff import report

    for line in report.summary(difference):
        print(line)
    if difference.packages:
        columns = ["change", "package", "before", "after", "flaws"]
        print_section("Packages", columns, report.package_rows(difference))
    changelogs = list(report.changelog_lines(difference))
    if changelogs:
        print("\nChangelogs")
        print("\n".join(changelogs))
    loose = difference.unexplained
    shown = loose if every_file else loose[: report.SHOWN_FILES]
    columns = ["change", "path", "what", "growth", "package"]
    if shown:
        print_section("Files that no changed package explains", columns, report.file_rows(shown))
    if len(loose) > len(shown):
        print(f"… {len(loose) - len(shown)} more with --files")
    for kind, part in difference.parts.items():
        if part.changes:
            heads = ["folder", "added", "removed", "changed", "growth"]
            print_section(f"Folders of the {kind} tarball", heads, report.folder_rows(part))
        if part.changes and every_file:
            print_section(f"Files of the {kind} tarball", columns, report.file_rows(part.changes))


def side_of(target: str, arch: str | None, workspace: Path | None) -> "Side":
    """Return the build that is meant; raises NotFoundError."""
    from coreimage.model.publication import IMAGE_TYPE
    from coreimage.rootfs.diff.sides import find_side

    path = Path(target)
    if path.is_dir():
        return find_side(path, name=target, arch=arch)
    space = load_space(workspace)
    if target.isdigit():
        return find_side(space.builds / target / "artifacts", name=f"build {target}", arch=arch)
    place = Path(target)
    if len(place.parts) == 3:  # noqa: PLR2004  project, series, build id
        place = place.parent / IMAGE_TYPE / place.name
    return find_side(space.publications / place, name=target, arch=arch)
