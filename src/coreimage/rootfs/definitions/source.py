"""definition.toml as it is written: reading it, and complaining about it by file, line and key."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coreimage.config import complaint, nearest
from coreimage.errors import DataError
from coreimage.lib.tomltext import SYNTAX_HINT, place_of, syntax_complaint
from coreimage.rootfs.definitions.packagelists import PACKAGE

# What adds up along `extends`; any other key replaces the one of the extended definition.
ADDITIVE = ("packages", "exclude_paths", "include_paths")
_Where = tuple[int | str, ...]
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One definition.toml: where it lies, its text, and what the text says."""

    path: Path
    text: str
    document: Mapping[str, Any]

    def place(self, where: _Where) -> str:
        """Return file and line of the value at `where`, or of the nearest table around it."""
        return place_of(self.path, self.text, where)


def read_source(path: Path) -> Source:
    """Read a definition.toml; raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    try:
        return Source(path=path, text=text, document=tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        line, message = syntax_complaint(text, error)
        raise DataError(f"{path}:{line}: {message}", hint=SYNTAX_HINT) from error


def merge(sources: Sequence[Source]) -> dict[str, Any]:
    """Return what the sources say together, the extended ones first."""
    merged: dict[str, Any] = {}
    for source in sources:
        for key, value in source.document.items():
            merged[key] = [*merged.get(key, []), *value] if key in ADDITIVE else value
    return merged


def validate(model: type[_Model], sources: Sequence[Source]) -> _Model:
    """Return the checked whole of the sources, the extended ones first.

    Raises DataError with file, line and key, and the nearest valid key as hint. What is required
    may come from any of the sources; all else is blamed on the file that says it.
    """
    for source in sources:
        for error in _errors(model, source.document):
            if error["type"] != "missing":
                raise _complaint(model, source, error)
    merged = merge(sources)
    for error in _errors(model, merged):
        where = error["loc"][:1] if len(error["loc"]) > 1 else ()
        guilty = [each for each in sources if not where or where[0] in each.document]
        raise _complaint(model, guilty[-1], error)
    return model.model_validate(merged)


def refuse_unknown(
    sources: Sequence[Source], where: _Where, known: Sequence[str], what: str
) -> None:
    """Raise DataError, with file and line, when the name at `where` is none of the known ones.

    `what` says what the name should be one of, such as release. The last source that says it is
    blamed.
    """
    for source in reversed(sources):
        if where[0] not in source.document:
            continue
        name: Any = source.document
        for part in where:
            name = name[part]
        if name not in known:
            key = ".".join(str(part) for part in where)
            raise DataError(
                f"{source.place(where)}: '{key}' is '{name}', and there is no such {what}",
                hint=nearest(str(name), known, f"the {what}s are"),
            )
        return


def _errors(model: type[BaseModel], document: Mapping[str, Any]) -> list[Any]:
    try:
        model.model_validate(document)
    except ValidationError as error:
        return list(error.errors())
    return []


def _complaint(model: type[BaseModel], source: Source, error: Mapping[str, Any]) -> DataError:
    message, hint = complaint(model, error)
    if error["type"] == "missing":
        hint = f"write '{error['loc'][-1]} = …' there, or in what it extends"
    elif error.get("ctx", {}).get("pattern") == PACKAGE:
        hint = "names of packages have small letters, digits, +, . and -"
    return DataError(f"{source.place(error['loc'])}: {message}", hint=hint)
