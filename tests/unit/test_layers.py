"""Who may import whom: the rule of docs/explanation, read from the source's own syntax tree."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import coreimage
from coreimage.lib import run

ROOT = Path(coreimage.__file__).parent
STAGES = ("farm", "rootfs", "publisher", "systemimage", "flasher", "boottest")
BASE = ("errors", "model", "lib", "feeds", "config")
# What each room may import of ours, besides itself.
OURS: Mapping[str, tuple[str, ...]] = {
    "errors": (),
    "model": ("errors",),
    "lib": ("errors", "model"),
    "feeds": ("errors", "model"),
    "config": ("errors", "model", "lib", "feeds"),
    **dict.fromkeys(STAGES, BASE),
    "updater": ("errors", "model", "lib"),
    "checks": (*BASE, *STAGES),
    "workspace": (*BASE, *STAGES),
    "pipeline": (*BASE, *STAGES, "workspace", "checks"),
    "imageset": (*BASE, *STAGES, "pipeline"),
    "schedule": (*BASE, *STAGES, "pipeline", "imageset"),
    "web": (*BASE, *STAGES, "workspace", "checks", "pipeline"),
    "cli": (*BASE, *STAGES, "workspace", "checks", "pipeline", "imageset", "schedule", "web"),
    "__main__": ("cli",),
}
# The same within the system-image server.
SERVER: Mapping[str, tuple[str, ...]] = {
    "signing": (),
    "delta": (),
    "tree": ("signing",),
    "store": ("signing", "tree"),
    "keys": ("signing", "tree", "store"),
    "operations": ("signing", "tree", "keys"),
    "mirrors": ("tree",),
    "imports": ("signing", "delta", "tree", "operations", "mirrors"),
    "upkeep": ("tree", "store", "keys", "operations"),
}
# What each room may import of others; the standard library is everybody's.
THIRD_PARTY: Mapping[str, tuple[str, ...]] = {
    "feeds": ("pydantic",),
    "config": ("pydantic",),
    "farm": ("cronsim", "sqlalchemy"),
    "rootfs": ("cyclonedx", "debian", "deflate", "packageurl", "pydantic"),
    "flasher": ("pydantic", "yaml"),
    "web": ("starlette", "anyio", "jinja2", "markupsafe", "uvicorn"),
    "cli": ("typer", "rich", "uvicorn"),
}
HEAVY = (
    "cyclonedx",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "yaml",
    "rich",
    "debian",
    "jinja2",
    "uvicorn",
)


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    def imports(self) -> Iterator[str]:
        """Yield the full names of what is imported anywhere in the module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: a relative import"
                assert node.module is not None
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in MODULES else node.module

    def calls(self) -> Iterator[str]:
        """Yield the dotted names that are used, such as os.system."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}"


def _modules() -> dict[str, Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


MODULES = _modules()
NAMES = [name for name in MODULES if name != "coreimage"]


def test_every_room_has_its_rule() -> None:
    assert {MODULES[name].room for name in NAMES} <= set(OURS)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    module = MODULES[name]
    may = {module.room, *OURS[module.room]}
    for full in module.imports():
        top, _, rest = full.partition(".")
        if top == "coreimage":
            assert not rest or rest.split(".")[0] in may, f"{name} imports {full}"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY.get(module.room, ()), f"{name} imports {full}"


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith("coreimage.systemimage.")]
)
def test_a_room_of_the_server_imports_only_those_below(name: str) -> None:
    room = name.split(".")[2]
    imported = {
        full.split(".")[2]
        for full in MODULES[name].imports()
        if full.startswith("coreimage.systemimage.")
    }
    assert imported <= {room, *SERVER[room]}


def test_subprocess_has_one_door() -> None:
    users = {name for name, module in MODULES.items() if "subprocess" in module.imports()}
    assert users == {"coreimage.lib.run"}


def test_nobody_goes_round_that_door() -> None:
    banned = {"os.system", "os.popen", "os.fork", "os.posix_spawn", "os.spawnv", "pty.spawn"}
    users = {name for name, module in MODULES.items() for call in module.calls() if call in banned}
    # A build's process leaves its parent by a double fork; a fork of itself runs no program.
    assert users <= {"coreimage.farm.detach"}


def test_only_the_command_line_exits() -> None:
    users = {
        module.room
        for module in MODULES.values()
        for call in module.calls()
        if call in {"sys.exit", "os._exit"} and module.name != "coreimage.farm.detach"
    }
    assert users <= {"cli", "updater"}


@pytest.mark.parametrize(
    "name", [name for name in MODULES if MODULES[name].path.stem == "__init__"]
)
def test_a_package_holds_a_docstring_only(name: str) -> None:
    tree = MODULES[name].tree
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize(
    "name", [name for name in MODULES if MODULES[name].path.stem != "__init__"]
)
def test_a_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(MODULES[name].tree)


def test_imports_have_no_cycle() -> None:
    graph = {
        name: {full for full in module.imports() if full in MODULES and full != name}
        for name, module in MODULES.items()
    }
    TopologicalSorter(graph).prepare()


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from coreimage.cli.main import app\n"
        "try:\n"
        "    app(['--help'], prog_name='coreimage')\n"
        "finally:\n"
        "    print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    said = run.run([sys.executable, "-c", script]).stdout.decode()
    loaded = said.rpartition("MODULES ")[2].split()
    assert "coreimage" in loaded
    assert not set(HEAVY).intersection(loaded)
