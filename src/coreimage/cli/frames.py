"""Frames of commands: what many of them take and print is written once."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from coreimage.cli.console import DryRunOption, JsonOption, WorkspaceOption, print_json
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.config import Workspace

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """Where a command changes something, when, and whether it only finds out what it would do."""

    workspace: "Workspace"
    now: datetime
    dry_run: bool = False


def here_and_now(workspace: Path | None, *, dry_run: bool = False) -> At:
    """Return where and when a command works that was called now."""
    return At(workspace=load_space(workspace), now=datetime.now(UTC), dry_run=dry_run)


def frame(
    run: Callable[..., None],
) -> Callable[[Callable[..., _Result]], Callable[..., None]]:
    """Return a decorator that makes commands of functions, with what `run` does around them.

    The function gets `At`, then its own arguments; `run` gets the function, which then wants
    nothing but `At`, and the arguments that all these commands share. A command takes both.
    """

    def decorate(function: Callable[..., _Result]) -> Callable[..., None]:
        own, shared = _parameters(function), _parameters(run)

        def command(**given: Any) -> None:
            arguments = {each.name: given[each.name] for each in own}

            def change(at: At) -> _Result:
                return function(at, **arguments)

            run(change, **{each.name: given[each.name] for each in shared})

        # What the command line is made of.
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
        command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        return command

    return decorate


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters of a function after its first, by keyword."""
    _, *rest = inspect.signature(function).parameters.values()
    return [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in rest]


@frame
def changes_channels(
    change: Callable[[At], Sequence[str]],
    *,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a command of a function that returns the names of the channels that changed."""
    channels = change(here_and_now(workspace, dry_run=dry_run))
    if json:
        print_json({"changed": list(channels), "dry_run": dry_run})
    elif channels:
        names = ", ".join(f"'{name}'" for name in channels)
        print(f"{'would change' if dry_run else 'changed'} {names}")
    else:
        print("nothing to change")
