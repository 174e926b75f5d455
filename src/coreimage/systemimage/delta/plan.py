"""Plan: which paths go and which members come, so that one tarball's tree becomes another's."""

from collections.abc import Iterator
from dataclasses import dataclass

from coreimage.systemimage.delta.contents import Contents, Node, UnsuitableError, parents, same


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a delta does: remove paths with all below them, then unpack members of the target.

    `newest` is the time of the target's newest file, in UNIX seconds.
    """

    removed: tuple[str, ...] = ()
    sent: frozenset[str] = frozenset()
    newest: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.removed or self.sent)


def is_safe(path: str) -> bool:
    """Tell whether a recovery can be told to remove a path.

    It reads the list with `read file` and runs `rm -Rf $file`, both without quotes: blanks split
    and are trimmed, `*?[` match other files, a backslash is lost, a dash begins an option.
    """
    return not path.startswith("-") and all(
        character.isprintable() and character not in " *?[\\" for character in path
    )


def plan(base: Contents, target: Contents) -> Plan:
    """Return the plan that makes the tree of `base` that of `target`, exactly.

    Changed files are compared by everything that makes them; a file whose time alone differs is
    sent too. A directory in which something comes or goes is sent again, as its time would change.
    Raises UnsuitableError for what the format cannot express.
    """
    sent = {path for path, node in target.nodes.items() if not same(base.nodes.get(path), node)}
    replaced = _replaced_directories(base, target)
    if replaced:
        sent |= {path for path in target.nodes if not replaced.isdisjoint((path, *parents(path)))}
    sent |= _disturbed_links(base, target, sent)
    removed = list(_removed(base, target, sent, replaced))
    touched = {*removed, *(path for path in sent if not _is_directory(base, path))}
    sent |= {next(parents(path), "") for path in touched}
    # Directories that no member describes come into being with what lies in them.
    sent = {path for path in sent if _is_described(target, path)}
    return Plan(removed=tuple(removed), sent=frozenset(sent), newest=target.newest)


def _disturbed_links(base: Contents, target: Contents, sent: set[str]) -> set[str]:
    """Return names of files that must be sent because the links between them change.

    Whoever is sent brings all names of its file. Names that stay must have been one file before,
    and no other name of that file may stay: that one is sent as a file of its own.
    """
    more: set[str] = set()
    for names in target.groups():
        if not sent.isdisjoint(names) or len({id(base.nodes[name]) for name in names}) > 1:
            more.update(names)
    names_of: dict[int, list[str]] = {}
    for name, node in target.nodes.items():
        names_of.setdefault(id(node), []).append(name)
    for names in base.groups():
        staying = [name for name in names if name in target.nodes and name not in sent | more]
        if staying:
            kept = target.nodes[staying[0]]
            for name in staying[1:]:
                if target.nodes[name] is not kept:
                    more.update(names_of[id(target.nodes[name])])
    return more


def _replaced_directories(base: Contents, target: Contents) -> set[str]:
    """Return directories that lose extended attributes: unpacking over them adds only."""
    return {
        path
        for path, new in target.nodes.items()
        if new.directory
        and not new.implicit
        and (old := base.nodes.get(path)) is not None
        and not old.attributes <= new.attributes
    }


def _removed(base: Contents, target: Contents, sent: set[str], replaced: set[str]) -> Iterator[str]:
    """Yield what the list must name: what is deleted or changes its kind, else would be in the way.

    Files that change are named too, where that is safe; tar replaces them by itself. What lies in a
    directory that goes is not named.
    """
    gone: set[str] = set()
    for path in sorted(base.nodes, key=lambda each: each.split("/")):
        old, new = base.nodes[path], target.nodes.get(path)
        if next(parents(path), None) in gone:
            gone.add(path)
        elif new is None or old.directory != new.directory or (old.directory and path in replaced):
            if not is_safe(path):
                raise UnsuitableError(
                    f"{path!r} has to go, and no recovery could be told so safely"
                )
            gone.add(path)
            yield path
        elif path in sent and not old.directory and is_safe(path):
            yield path


def _is_directory(tree: Contents, path: str) -> bool:
    found = tree.nodes.get(path)
    return found is not None and found.directory


def _is_described(tree: Contents, path: str) -> bool:
    found: Node | None = tree.nodes.get(path)
    return found is not None and not found.implicit
