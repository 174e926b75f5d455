"""Write the pages that come from the code: a man page for each command.

With --check nothing is written, and the exit status says whether the pages are up to date.
"""

import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

MAN = Path(__file__).parents[1] / "docs/reference/man"
PROGRAMS = {
    "coreimage": "coreimage.cli.main",
    "ubuntu-device-flash": "coreimage.cli.device_flash",
    "for-project": "coreimage.cli.for_project",
    "cron.daily-preinstalled": "coreimage.cli.daily_preinstalled",
}
_HIDDEN = ("--install-completion", "--show-completion", "--help")


def roff(text: str) -> str:
    """Return text for a man page; lines that begin like a request are protected."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(
        f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines()
    )


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command and all below it with their full names."""
    if getattr(command, "hidden", False):
        return
    yield name, command
    for word, each in sorted(getattr(command, "commands", {}).items()):
        yield from commands(each, f"{name} {word}")


def synopsis(name: str, command: Any) -> str:
    """Return the usage line."""
    words = [name]
    if any(each.param_type_name == "option" for each in command.params):
        words.append("[OPTIONS]")
    for each in command.params:
        if each.param_type_name == "argument":
            shown = (each.metavar or each.name).upper()
            words.append(shown if each.required else f"[{shown}]")
    if getattr(command, "commands", None):
        words.append("COMMAND ...")
    return " ".join(words)


def options(command: Any) -> Iterator[str]:
    """Yield the options of a command, each as a paragraph."""
    for each in command.params:
        names = [*each.opts, *each.secondary_opts]
        if each.param_type_name != "option" or set(names) & set(_HIDDEN) or each.hidden:
            continue
        value = "" if each.is_flag else f" {(each.metavar or each.name).upper()}"
        yield f".TP\n\\fB{roff(', '.join(names))}\\fR{roff(value)}\n{roff(each.help or '')}"


def page(name: str, command: Any) -> str:
    """Return the man page of a command, with those of its own that have no page."""
    text = textwrap.dedent(command.help or "").strip()
    brief, _, rest = text.partition("\n\n")
    title = name.replace(" ", "-")
    brief = " ".join(brief.split()).rstrip(".")
    lines = [
        f'.TH "{title.upper()}" "1" "" "coreimage" "coreimage manual"',
        ".SH NAME",
        f"{roff(title)} \\- {roff(brief[:1].lower() + brief[1:])}",
        ".SH SYNOPSIS",
        f".B {roff(synopsis(name, command))}",
    ]
    if rest:
        lines += [".SH DESCRIPTION"]
        for part in rest.split("\n\n"):
            lines += [".PP", roff(part)]
    shown = list(options(command))
    if shown:
        lines += [".SH OPTIONS", *shown]
    below = sorted(getattr(command, "commands", {}).items())
    if below:
        lines.append(".SH COMMANDS")
        for word, each in below:
            first = " ".join((each.help or "").strip().split("\n\n")[0].split())
            lines.append(f".TP\n\\fB{roff(word)}\\fR\n{roff(first)}")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Return all pages by file name."""
    found: dict[str, str] = {}
    for program, module in PROGRAMS.items():
        root = typer.main.get_command(import_module(module).app)
        for name, command in commands(root, program):
            found[f"{name.replace(' ', '-')}.1"] = page(name, command)
    return found


def main() -> int:
    """Write or check the pages."""
    wanted = pages()
    present = {path.name: path.read_text() for path in MAN.glob("*.1")}
    if "--check" in sys.argv[1:]:
        stale = sorted(
            name for name in {*wanted, *present} if wanted.get(name) != present.get(name)
        )
        if stale:
            print(f"out of date: {', '.join(stale)}; run 'make docs'", file=sys.stderr)
        return bool(stale)
    MAN.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - wanted.keys():
        (MAN / name).unlink()
    for name, text in wanted.items():
        (MAN / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
