"""coreimage publication: look at published builds and mark the ones that passed."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table

if TYPE_CHECKING:
    from coreimage.model.publication import Publication

app = typer.Typer(help="Published builds.", no_args_is_help=True)


@app.command("list")
def list_publications(as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List publications with their marks, oldest first.

    Example: coreimage publication list
    """
    from coreimage.cli.space import load_space
    from coreimage.publisher.marks import marks, publications

    tree = load_space(workspace).publications
    found = [(each, marks(tree, each)) for each in publications(tree)]
    if as_json:
        print_json(
            [
                {
                    "project": each.project,
                    "series": each.series,
                    "version": each.version,
                    "path": str(tree / each.path),
                    "marks": carried,
                }
                for each, carried in found
            ]
        )
        return
    print_table(
        "Publications",
        ["project", "series", "build id", "marks"],
        [[each.project, each.series, each.version, ", ".join(of)] for each, of in found],
    )


@app.command("mark-good")
def mark_good(
    publication: Annotated[str, typer.Argument(help="PROJECT/SERIES/BUILD-ID")],
    workspace: WorkspaceOption = None,
) -> None:
    """Record that a publication passed; `current` then points at the newest one that did.

    Example: coreimage publication mark-good debian-core/trixie/20261123
    """
    from coreimage.cli.space import load_space
    from coreimage.publisher import marks

    space, wanted = load_space(workspace), _parse(publication)
    marks.mark_good(space.publications, wanted, locks=space.state / "locks")
    print(f"'{wanted.path}' is marked good since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def _parse(text: str) -> "Publication":
    from coreimage.errors import DataError, UsageError
    from coreimage.model.publication import Publication

    try:
        project, series, version = text.split("/")
        return Publication(project=project, series=series, version=version)
    except (ValueError, DataError):
        raise UsageError(
            f"'{text}' does not name a publication",
            hint="name it as in debian-core/trixie/20261123",
        ) from None
