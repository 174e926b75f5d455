"""A definition and what building it would run, as plain data for people and programs."""

from collections.abc import Iterable, Iterator
from typing import Any

from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.definitions.livebuild import PARTS
from coreimage.rootfs.definitions.source import ADDITIVE, Source, merge
from coreimage.rootfs.plan import RootfsPlan


def describe_plan(
    selection: Selection, archive: Archive, plan: RootfsPlan, *, files: dict[str, str]
) -> dict[str, Any]:
    """Return what a build would run: steps, environment, hooks in their order, archives, files."""
    return {
        **_identity(selection),
        "steps": [
            {"stage": stage, "title": step.title, "where": step.where, "argv": list(step.argv)}
            for stage, steps in (
                ("packages", plan.essential),
                ("packages", plan.packages),
                ("late", plan.late),
            )
            for step in steps
        ],
        "environment": {key: each for key, each in plan.env.items() if key != "SOURCE_DATE_EPOCH"},
        "hooks": [
            {"kind": kind, "name": name, "path": str(path)}
            for kind in ("chroot_early", "chroot", "binary")
            for name, path in selection.hooks(kind).items()
        ],
        "preseed": [str(path) for path in selection.preseeds().values()],
        "packages": selection.packages,
        "sources": list(archive.sources),
        "keyring": str(archive.keyring),
        "extra_archives": [
            {
                "name": extra.name,
                "sources": extra.sources,
                "preferences": extra.preferences,
                "keys": list(extra.keys),
            }
            for extra in archive.extras
        ],
        "ids_pinned": selection.pins() is not None,
        "files": list(files.values()),
    }


def plan_lines(described: dict[str, Any], steps: Iterable[str]) -> Iterator[str]:
    """Yield a described plan as text; `steps` are the steps as text."""
    about = ("release", "arch", "device", "subproject")
    yield f"{described['title']} " + ", ".join(described[each] for each in about)
    yield "archives:"
    for line in described["sources"]:
        yield f"  {line}"
    for extra in described["extra_archives"]:
        yield f"  {extra['name']}, signed by {', '.join(extra['keys']) or 'nobody: pins only'}"
        skip = False
        for line in extra["sources"].splitlines():
            skip = line.startswith("Signed-By:") or (skip and line.startswith(" "))
            if not skip:
                yield f"    {line}"
        yield from (f"    {line}" for line in extra["preferences"].splitlines())
    yield "hooks:"
    if described["ids_pinned"]:
        yield "  users and groups are pinned"
    for path in described["preseed"]:
        yield f"  {'preseed':<12}  {path}"
    for hook in described["hooks"]:
        yield f"  {hook['kind']:<12}  {hook['path']}"
    yield "steps:"
    for text in steps:
        yield from (f"  {line}" for line in text.splitlines() or [""])
    yield "files:"
    yield from (f"  {name}" for name in described["files"])


def describe_selection(selection: Selection, sources: list[Source]) -> dict[str, Any]:
    """Return a definition as it is after all is merged, and where each part comes from.

    `sources` are the definition.toml files, those of extended definitions first.
    """
    return {
        **_identity(selection),
        "definition": selection.definition.model_dump(mode="json"),
        "keys": {key: _origin(key, sources) for key in merge(sources)},
        "layers": [str(layer) for layer in selection.layers if layer.is_dir()],
        "packages": dict(_package_origins(selection, sources)),
        "files": {
            f"{part}/{name}": str(path)
            for part in PARTS
            if part != "ids"
            for name, path in selection.files(part).items()
        },
        "ids": [
            str(layer / "ids" / name)
            for layer in selection.layers
            for name in ("passwd", "group")
            if (layer / "ids" / name).is_file()
        ],
    }


def selection_lines(described: dict[str, Any]) -> Iterator[str]:
    """Yield a described definition as text, a line each, with its origin after a tab."""
    definition = described["definition"]
    for key, origin in described["keys"].items():
        if key not in ADDITIVE and not isinstance(definition[key], dict):
            yield f"{key} = {definition[key]}\t{origin}"
    for key in ("releases", "architectures", "devices"):
        if definition[key]:
            yield f"{key} = {', '.join(definition[key])}\t{described['keys'][key]}"
    for title in ("packages", "files"):
        yield f"{title}:"
        yield from (f"  {name}\t{origin}" for name, origin in described[title].items())
    yield "ids:"
    yield from (f"  {path}" for path in described["ids"] or ["not pinned"])


def _identity(selection: Selection) -> dict[str, Any]:
    return {
        "name": selection.definition.name,
        "title": selection.definition.title,
        "release": selection.release_name,
        "series": selection.release.series,
        "arch": selection.arch,
        "device": selection.device,
        "subproject": selection.subproject,
    }


def _origin(key: str, sources: list[Source]) -> str:
    """Return where a key is written: every place when it adds up, else the last one."""
    places = [source.place((key,)) for source in sources if key in source.document]
    return ", ".join(places) if key in ADDITIVE else places[-1]


def _package_origins(selection: Selection, sources: list[Source]) -> Iterator[tuple[str, str]]:
    tables = (
        (),
        ("releases", selection.release_name),
        ("architectures", selection.arch),
        ("devices", selection.device),
    )
    origins: dict[str, str] = {}
    for path in selection.files("package-lists").values():
        origins.update({name: str(path) for name in selection.listed(path)})
    for source in sources:
        for table in tables:
            node: Any = source.document
            for part in (*table, "packages"):
                node = node.get(part, {}) if isinstance(node, dict) else {}
            for number, name in enumerate(node):
                origins[name] = source.place((*table, "packages", number))
    yield from ((name, origins[name]) for name in selection.packages)
