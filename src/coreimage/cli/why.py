"""The command `coreimage image why`: which way a device would take, and why."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table
from coreimage.cli.space import load_space
from coreimage.model.upgrade import Client

if TYPE_CHECKING:
    from coreimage.model.index import Image
    from coreimage.model.upgrade import Candidate, Decision


def why(
    channel: Annotated[
        str, typer.Option(help="The device's channel, for example debian-core/13/edge.")
    ],
    build: Annotated[int, typer.Option(min=0, help="The build that it has; 0 for a new one.")],
    device: Annotated[str, typer.Option(help="The device.")] = "generic_amd64",
    machine_id: Annotated[
        str | None,
        typer.Option(help="Its /etc/machine-id, which decides where it stands in a phase."),
    ] = None,
    client: Annotated[
        Client, typer.Option(help="Whose rules count: ours, or those of system-image clients.")
    ] = Client.OURS,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Explain which images a device would install next, and what speaks against the others.

    The lowest score wins: a MiB more than the smallest way counts 1, a reboot on the way 100, a
    version that it does not reach 9001.

    Example: coreimage image why --channel debian-core/13/edge --build 3
    """
    from coreimage.model.upgrade import decide
    from coreimage.systemimage.tree import layout

    place = load_space(workspace)
    index = layout.read_index(place, channel, device)
    decision = decide(
        index,
        build=build,
        client=client,
        channel=channel,
        target=layout.read_channels(place).require(channel).alias,
        machine_id=machine_id,
    )
    if json:
        print_json(_fields(decision))
    else:
        _show(decision, build)


def _show(decision: "Decision", build: int) -> None:
    chosen = decision.chosen
    if chosen is None:
        print(f"build {build} stays: no image is offered to it\n")
    else:
        print(f"build {build} goes to version {chosen.version} by {_words(chosen)}")
        later = chosen.images[len(chosen.first_leg) :]
        if later:
            print(f"it reboots into {chosen.first_leg[-1].version} before {later[0].version}")
        print()
    for version, draw in decision.draws.items():
        print(f"in a phase of version {version} it has number {draw}")
    rows = [
        [
            _words(each),
            str(each.score),
            f"{each.size / 1e6:.1f} MB",
            "taken" if each is chosen else each.excluded or "a lower score is taken",
        ]
        for each in decision.candidates
    ]
    rows += [
        [_name(image), "", f"{image.size / 1e6:.1f} MB", why] for image, why in decision.unreachable
    ]
    print_table("Ways", ["images", "score", "size", "verdict"], rows)


def _name(image: "Image") -> str:
    return f"{image.type} {image.version}" + ("" if image.base is None else f" from {image.base}")


def _words(candidate: "Candidate") -> str:
    return ", ".join(_name(image) for image in candidate.images)


def _image(image: "Image") -> dict[str, Any]:
    return {"type": image.type.value, "version": image.version, "base": image.base}


def _fields(decision: "Decision") -> dict[str, Any]:
    chosen = decision.chosen
    return {
        "chosen": None if chosen is None else _candidate(chosen),
        "candidates": [_candidate(each) for each in decision.candidates],
        "unreachable": [
            {**_image(image), "size": image.size, "reason": reason}
            for image, reason in decision.unreachable
        ],
        "draws": {str(version): draw for version, draw in decision.draws.items()},
    }


def _candidate(candidate: "Candidate") -> dict[str, Any]:
    return {
        "images": [_image(image) for image in candidate.images],
        "first_leg": [_image(image) for image in candidate.first_leg],
        "version": candidate.version,
        "score": candidate.score,
        "size": candidate.size,
        "reboots": candidate.reboots,
        "excluded": candidate.excluded,
    }
