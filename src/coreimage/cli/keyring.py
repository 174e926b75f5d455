"""The command `coreimage keyring`: the server's keys."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    progress,
)
from coreimage.cli.frames import At, frame, here_and_now
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.model.keyring import KeyringType
    from coreimage.systemimage.keys.asked import Asked
    from coreimage.systemimage.keys.keychange import Change
    from coreimage.systemimage.keys.keyrings import KeyringStatus

app = typer.Typer(
    help="Make, rotate, revoke and show the keys that sign channels and images.\n\n"
    "A key that is needed may be offline: --prepare DIR writes what must be signed and a script "
    "with plain gpg lines for the machine that has it; --finish DIR verifies the signatures that "
    "come back, and publishes.",
    no_args_is_help=True,
)

LevelArgument = Annotated[str, typer.Argument(help="The keyring, for example image-signing.")]
PrepareOption = Annotated[
    Path | None,
    typer.Option(
        help="Write what must be signed elsewhere to this new folder, and publish nothing yet.",
        show_default=False,
    ),
]
FinishOption = Annotated[
    Path | None,
    typer.Option(
        help="Publish what was prepared, with the signatures of this folder.", show_default=False
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Also when published files are signed by the key."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the words of a command ask for, and what makes the change."""

    asked: "Asked"
    make: "Callable[[], Change]"


def _carry_out(
    want: Callable[[At], _Wanted],
    *,
    prepare: PrepareOption = None,
    finish: FinishOption = None,
    workspace: WorkspaceOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Publish, prepare or finish a change of keyrings, and say what was done."""
    from coreimage.errors import UsageError
    from coreimage.systemimage.keys import keychange, keyrings

    if prepare is not None and finish is not None:
        raise UsageError("--prepare and --finish exclude each other")
    at = here_and_now(workspace, dry_run=dry_run)
    wanted = want(at)
    waiting: list[keychange.ToSign] = []
    if finish is not None:
        with keyrings.locked(at.workspace, "keyring"):
            change = keychange.finish(
                at.workspace, finish, asked=wanted.asked, now=at.now, dry_run=dry_run
            )
    elif dry_run:
        change = wanted.make()
        waiting = keychange.needed(at.workspace, change)
    else:
        change, found = keychange.carry_out(
            at.workspace, wanted.make, directory=prepare, now=at.now
        )
        waiting = list(found)
    done = not (dry_run or prepare)
    if json:
        print_json(
            {
                "change": change.purpose,
                "keyrings": list(change.tarballs),
                "published": done,
                "to_sign": [
                    {"file": each.name, "level": each.level, "key": each.fingerprint}
                    for each in waiting
                ],
            }
        )
        return
    does, did = ("publish", "published") if prepare is None else ("prepare", "prepared")
    lead = f"would {does}" if dry_run else did
    print(f"{lead}: {', '.join(change.tarballs) or 'nothing'}")
    for each in waiting:
        print(f"to be signed by {each.level} {each.fingerprint}: {each.name}")
    if prepare is not None and not dry_run:
        print(f"run '{prepare}/sign.sh' where the keys are, then use --finish {prepare}")


changes_keys = frame(_carry_out)


@app.command()
def generate(
    dry_run: DryRunOption = False, workspace: WorkspaceOption = None, json: JsonOption = False
) -> None:
    """Make the keys that are missing and publish the keyrings that are missing or due.

    Existing keys are never replaced, so this can run as often as you like; run it weekly, and
    keyrings are renewed before they expire.

    Example: coreimage keyring generate
    """
    from coreimage.systemimage.keys import keyrings

    place, now = load_space(workspace), datetime.now(UTC)
    if dry_run:
        made, published = keyrings.outline(place, now=now)
    else:
        made, published = [], keyrings.generate(place, progress=progress(), now=now)
    if json:
        pinned = place.archive_master
        print_json({"published": published, "archive_master": pinned, "dry_run": dry_run})
        return
    for level in made:
        print(f"would make: the key of {level}")
    done = "would publish" if dry_run else "published"
    print(f"{done}: {', '.join(published)}" if published else "all keyrings are up to date")
    print(f"clients start from '{place.archive_master}'")


@app.command()
def rotate(
    level: Annotated[str, typer.Argument(help="The keyring, for example image-signing.")],
    key: Annotated[
        Path | None,
        typer.Option(
            help="The public half of the next key, when it was made elsewhere.", show_default=False
        ),
    ] = None,
    prepare: PrepareOption = None,
    finish: FinishOption = None,
    workspace: WorkspaceOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Introduce a new key of a level beside the old one, and let it sign from now on.

    What the old key has signed stays valid until that is retired or revoked. A new archive-master
    signs only when the old one is retired, so that devices can get it first.

    \b
    Examples:
      coreimage keyring rotate image-signing
      coreimage keyring rotate image-master --key new.asc --prepare /media/usb/rotation
      coreimage keyring rotate image-master --finish /media/usb/rotation
    """  # noqa: D301  \b keeps the lines of the examples apart
    from coreimage.systemimage.keys import rotation
    from coreimage.systemimage.keys.asked import Asked, Verb

    kind = _level(level)
    if dry_run and finish is None:
        steps = rotation.outline(load_space(workspace), kind)
        if json:
            print_json({"change": f"keyring rotate {kind}", "published": False, "steps": steps})
        else:
            print("\n".join(steps))
        return

    def want(at: At) -> _Wanted:
        def make() -> "Change":
            if key is not None:
                rotation.adopt(at.workspace, kind, key)
            return rotation.rotate(at.workspace, kind, now=at.now)

        following = rotation.fingerprint_in(key) if key and finish else ""
        return _Wanted(asked=Asked(verb=Verb.ROTATE, levels=[kind], key=following), make=make)

    _carry_out(
        want, prepare=prepare, finish=finish, workspace=workspace, dry_run=dry_run, json=json
    )


@app.command()
@changes_keys
def retire(
    at: At,
    level: LevelArgument,
    key: Annotated[
        str, typer.Argument(help="The key; by default the oldest.", show_default=False)
    ] = "",
    force: ForceOption = False,
) -> _Wanted:
    """Take an old key out of its keyring, when nothing published is signed by it any more.

    Example: coreimage keyring retire image-signing
    """
    from coreimage.systemimage.keys import rotation
    from coreimage.systemimage.keys.asked import Asked, Verb

    kind = _level(level)
    return _Wanted(
        asked=Asked(verb=Verb.RETIRE, levels=[kind], key=key, force=force),
        make=lambda: rotation.retire(at.workspace, kind, key, force=force, now=at.now),
    )


@app.command()
@changes_keys
def revoke(
    at: At,
    key: Annotated[str, typer.Argument(help="The key's fingerprint, or its last 16 digits.")],
    force: ForceOption = False,
) -> _Wanted:
    """Put a key on the blacklist, for good: clients refuse whatever it has signed.

    A key that signs now is rotated first, and everything signed again.

    Example: coreimage keyring revoke 0123456789ABCDEF
    """
    from coreimage.systemimage.keys import rotation
    from coreimage.systemimage.keys.asked import Asked, Verb

    return _Wanted(
        asked=Asked(verb=Verb.REVOKE, key=key, force=force),
        make=lambda: rotation.revoke(at.workspace, key, force=force, now=at.now),
    )


@app.command()
@changes_keys
def publish(
    at: At,
    levels: Annotated[
        list[str] | None, typer.Argument(help="The keyrings; by default all.", show_default=False)
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            help="How long they may be used; by default as always for their level.",
            min=1,
            show_default=False,
        ),
    ] = None,
) -> _Wanted:
    """Publish keyrings again, with the keys there are and a new time of expiry.

    Example: coreimage keyring publish image-signing --days 365
    """
    from coreimage.model.keyring import KeyringType
    from coreimage.systemimage.keys import rotation
    from coreimage.systemimage.keys.asked import Asked, Verb

    named = [_level(each) for each in levels or []]
    lifetime = None if days is None else timedelta(days=days)
    return _Wanted(
        asked=Asked(verb=Verb.PUBLISH, levels=named, days=days),
        make=lambda: rotation.renew(
            at.workspace, named or list(KeyringType), lifetime=lifetime, now=at.now
        ),
    )


@app.command()
def adopt(
    level: LevelArgument,
    file: Annotated[Path, typer.Argument(help="The public key, from 'gpg --export'.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Take the public half of a key that was made elsewhere, before 'keyring generate'.

    Example: coreimage keyring adopt archive-master archive-master.asc
    """
    from coreimage.systemimage.keys import keyrings, rotation

    place, kind = load_space(workspace), _level(level)
    with keyrings.locked(place, "keyring adopt"):
        fingerprint = rotation.adopt(place, kind, file)
    if json:
        print_json({"level": kind, "fingerprint": fingerprint})
    else:
        print(f"{kind}: {fingerprint}")


@app.command(name="list")
def list_keyrings(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the published keyrings, from the archive-master downwards.

    Example: coreimage keyring list
    """
    from coreimage.systemimage.keys import keyrings

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
def show(level: LevelArgument, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show a keyring with the fingerprints of its keys.

    Example: coreimage keyring show archive-master
    """
    from coreimage.errors import NotFoundError
    from coreimage.systemimage.keys import keyrings

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
    rows += [["signs now", each.signing]] if each.signing else []
    rows += [["introduced", each.next]] if each.next else []
    rows += [["expires", _expiry(each, now)], ["signed by", each.signed_by]]
    rows += [["private key", each.place or "not here"]]
    print_table(f"Keyring {level}", ["field", "value"], rows)


@app.command()
def log(
    verify: Annotated[
        bool, typer.Option("--verify", help="Say only whether the log is whole.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was signed: when, by which key, for which channel; refusals too.

    Each line has the hash of the one before it, so a line that was changed or removed is noticed,
    and ends the command with exit code 76.

    Example: coreimage keyring log --verify
    """
    from coreimage.lib import ledger
    from coreimage.systemimage.signing.service import log_path, require_logged

    place = load_space(workspace)
    entries = ledger.read(log_path(place))
    if verify:
        require_logged(place, entries)
        last = entries[-1].digest if entries else ledger.START
        if json:
            print_json({"entries": len(entries), "last": last})
        else:
            print(f"the log is whole: {len(entries)} entries, the last is {last}")
        return
    if json:
        print_json([dict(each.fields) for each in entries])
        return
    rows = [
        [
            each.time,
            str(each.fields.get("purpose", "")),
            str(each.fields.get("name", "")),
            f"{each.fields.get('level', '')} {str(each.fields.get('key', ''))[-16:]}",
            f"{each.fields.get('channel', '')} {each.fields.get('device', '')}".strip(),
            f"refused: {each.fields['refused']}" if "refused" in each.fields else "",
        ]
        for each in entries
    ]
    print_table("Signatures", ["time", "kind", "file", "key", "for", ""], rows)


def _level(name: str) -> "KeyringType":
    from coreimage.errors import NotFoundError
    from coreimage.model.keyring import KeyringType

    try:
        return KeyringType(name)
    except ValueError:
        raise NotFoundError(
            f"there is no keyring '{name}'", hint=f"the keyrings are {', '.join(KeyringType)}"
        ) from None


def _fields(status: "KeyringStatus") -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(status), "expiry": status.expiry and status.expiry.isoformat()}


def _expiry(status: "KeyringStatus", now: "datetime") -> str:
    if status.expiry is None:
        return "never"
    late = " (expired)" if status.expiry <= now else ""
    return f"{status.expiry:%F}{late}"
