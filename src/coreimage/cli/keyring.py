"""The command `coreimage keyring`: the server's keys."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table, progress
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.systemimage.keyrings import KeyringStatus

app = typer.Typer(
    help="Make, renew and show the keys that sign channels and images.", no_args_is_help=True
)


@app.command()
def generate(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Make the keys that are missing and publish the keyrings that are missing or due.

    Existing keys are never replaced, so this can run as often as you like; run it weekly, and
    keyrings are renewed before they expire.

    Example: coreimage keyring generate
    """
    from coreimage.systemimage import keyrings

    place, now = load_space(workspace), datetime.now(UTC)
    published = keyrings.generate(place, progress=progress(), now=now)
    if json:
        print_json({"published": published, "archive_master": place.archive_master})
        return
    print(f"published: {', '.join(published)}" if published else "all keyrings are up to date")
    print(f"clients start from '{place.archive_master}'")


@app.command(name="list")
def list_keyrings(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the published keyrings, from the archive-master downwards.

    Example: coreimage keyring list
    """
    from coreimage.systemimage import keyrings

    place, now = load_space(workspace), datetime.now(UTC)
    found = keyrings.describe(place)
    if json:
        print_json([_fields(each) for each in found])
        return
    rows = [
        [
            each.level,
            ", ".join(key[-16:] for key in each.fingerprints) or "no keys",
            _expiry(each, now),
            each.signed_by,
        ]
        for each in found
    ]
    print_table("Keyrings", ["keyring", "keys", "expires", "signed by"], rows)


@app.command()
def show(
    level: Annotated[str, typer.Argument(help="The keyring, for example image-signing.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show a keyring with the fingerprints of its keys.

    Example: coreimage keyring show archive-master
    """
    from coreimage.errors import NotFoundError
    from coreimage.systemimage import keyrings

    place, now = load_space(workspace), datetime.now(UTC)
    found = {each.level.value: each for each in keyrings.describe(place)}
    if level not in found:
        raise NotFoundError(
            f"there is no keyring '{level}'",
            hint=f"the keyrings are {', '.join(found)}"
            if found
            else "make the keys with 'coreimage keyring generate'",
        )
    if json:
        print_json(_fields(found[level]))
        return
    each = found[level]
    rows = [["keyring", each.level], *(["fingerprint", key] for key in each.fingerprints)]
    rows += [["expires", _expiry(each, now)], ["signed by", each.signed_by]]
    rows += [["private key", "here" if each.private else "not here"]]
    print_table(f"Keyring {level}", ["field", "value"], rows)


def _fields(status: "KeyringStatus") -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(status), "expiry": status.expiry and status.expiry.isoformat()}


def _expiry(status: "KeyringStatus", now: "datetime") -> str:
    if status.expiry is None:
        return "never"
    late = " (expired)" if status.expiry <= now else ""
    return f"{status.expiry:%F}{late}"
