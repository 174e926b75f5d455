"""Documentation and code say the same."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from coreimage import errors
from coreimage.cli import daily_preinstalled, device_flash, for_project, main
from coreimage.config import (
    ArchiveSettings,
    ExtraArchiveSettings,
    ScheduleSettings,
    Settings,
    SigningSettings,
)
from coreimage.feeds import (
    ChannelSettings,
    FileFeed,
    HttpFeed,
    KeyringFeed,
    PublishedFeed,
    RemoteFeed,
    SystemImageFeed,
)
from coreimage.rootfs.definitions.definition import Architecture, Definition, Device, Release
from coreimage.systemimage.imports.generators.table import GENERATORS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "NEWS.md", "CONTRIBUTING.md")),
        *ROOT.glob("docs/**/*.md"),
    ]
)
PROGRAMS = {
    "coreimage": typer.main.get_command(main.app),
    "ubuntu-device-flash": typer.main.get_command(device_flash.app),
    "for-project": typer.main.get_command(for_project.app),
    "cron.daily-preinstalled": typer.main.get_command(daily_preinstalled.app),
}
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CELL = re.compile(r"`([^`]+)`")


def text_of(page: Path) -> str:
    """Return a page without its code blocks, where brackets are no links."""
    return re.sub(r"(?s:```.*?```)|^    .*$", "", page.read_text(), flags=re.MULTILINE)


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(text_of(page)):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=str)
def test_relative_links_lead_to_files(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    assert found.is_relative_to(ROOT)
    assert found.is_file()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", found.read_text(), flags=re.MULTILINE)
        assert anchor in {
            re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings
        }


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    linked = {(page.parent / target).resolve() for page, target in links() if page == index}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - linked == {index}


def code_lines(page: Path) -> Iterator[str]:
    """Yield the lines of code blocks, continued ones joined, and what stands between backticks."""
    text = page.read_text().replace("\\\n", " ")
    yield from re.findall(r"^    (.*)$", text, flags=re.MULTILINE)
    yield from (f"$ {each}" for each in _CELL.findall(text_of(page)))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command line of ours: the page, and its words."""
    for page in PAGES:
        for line in code_lines(page):
            shown = line.strip().removeprefix("$ ").removeprefix("or: ")
            program = shown.partition(" ")[0].rpartition("/")[2]
            if program not in PROGRAMS or re.search(r"[{}…]|\.\.\.", shown):
                continue
            lexer = shlex.shlex(shown, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = [program]
            for word in list(lexer)[1:]:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
            yield page.name, words


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=str)
def test_commands_exist_with_their_options(page: str, words: list[str]) -> None:
    del page
    command: Any = PROGRAMS[words[0]]
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    if hasattr(command, "commands"):
        assert set(rest) <= {"--help", "--version"}
    elif rest:  # what is only named, without any argument, need not be complete
        command.make_context(words[0], rest)  # parses, and raises what it would complain of


def rows(page: str) -> dict[str, list[str]]:
    """Return the rows of a page's tables by the text of their first cell."""
    found = {}
    for line in (ROOT / "docs/reference" / page).read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| key") and not line.startswith("| code"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found[cells[0].strip("`")] = cells[1:]
    return found


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and default of each setting; what is required has the default `...`."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from fields(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "required" if field.is_required() else default


def expected_settings() -> dict[str, Any]:
    tables: dict[str, tuple[str, type[BaseModel]]] = {
        "archives": ("archives.DISTRIBUTION.", ArchiveSettings),
        "extra_archives": ("extra_archives.NAME.", ExtraArchiveSettings),
        "channels": ('channels."NAME".', ChannelSettings),
        "schedules": ("schedules.NAME.", ScheduleSettings),
        "signing": ("signing.LEVEL.", SigningSettings),
    }
    found = dict(fields(Settings))
    for name, (prefix, model) in tables.items():
        assert found.pop(name) == {}
        found.update(fields(model, prefix))
    return found


def shown(default: Any) -> str:
    """Return a default as the pages show it, in TOML."""
    match default:
        case None | "required":
            return default or "none"
        case dict():
            inside = ", ".join(f'{key} = "{value}"' for key, value in default.items())
            return f"`{{ {inside} }}`" if inside else "`{}`"
        case str():
            return f'`"{default}"`'
        case tuple() | list():
            return f"`{list(default)}`".replace("'", '"')
        case bool():
            return f"`{str(default).lower()}`"
        case _:
            return f"`{default}`".lower()


def test_configuration_lists_every_setting_with_its_default() -> None:
    documented = {key: cells[0] for key, cells in rows("configuration.md").items()}
    assert documented == {key: shown(default) for key, default in expected_settings().items()}


def test_every_key_of_every_generator_is_listed_with_its_default() -> None:
    kinds: dict[str, type[BaseModel]] = {
        "cdimage": PublishedFeed,
        "http": HttpFeed,
        "keyring": KeyringFeed,
        "system-image": SystemImageFeed,
        "remote-system-image": RemoteFeed,
    }
    common = dict(fields(FileFeed))
    expected = dict(common)
    for kind, model in kinds.items():
        own = {key: each for key, each in fields(model) if common.get(key, ...) != each}
        expected.update({f"{kind}.{key}": each for key, each in own.items() if key != "generator"})
    documented = {key: cells[0] for key, cells in rows("channel-files.md").items()}
    generators = get_args(PublishedFeed.model_fields["generator"].annotation)
    assert set(GENERATORS) == set(generators)
    for name in (*generators, *kinds, "version"):
        documented.pop(name, None)
    del documented["generator"]
    assert documented == {key: shown(default) for key, default in expected.items()}


def test_definition_lists_every_key_with_its_default() -> None:
    found = dict(fields(Definition))
    del found["releases"], found["architectures"], found["devices"]
    found.update(fields(Release, "releases.RELEASE."))
    found.update(fields(Architecture, "architectures.ARCH."))
    found.update(fields(Device, "devices.DEVICE."))
    documented = {
        key: cells[0] for key, cells in rows("definition.md").items() if cells[0] != "content"
    }
    folders = {key for key in documented if "/" in key or key == "folder"}
    assert {key: cell for key, cell in documented.items() if key not in folders} == {
        key: shown(default) for key, default in found.items()
    }


def test_exit_codes_are_those_of_the_errors() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.CoreImageError)
    ]
    expected: dict[str, set[str]] = {}
    for each in classes:
        code = "128+n" if each is errors.TerminatedError else str(each.exit_code)
        expected.setdefault(code, set()).add(each.__name__)
    documented = {
        code: set(_CELL.findall(cells[0])) for code, cells in rows("exit-codes.md").items()
    }
    assert documented == {**expected, "0": set(), "70": set()}
