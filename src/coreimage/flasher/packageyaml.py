"""package.yaml: reading one strictly, and saying what is wrong with it and what would be right."""

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from coreimage.config import nearest_key
from coreimage.errors import DataError

PACKAGE_YAML = "meta/package.yaml"
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A table of such a file: keys with hyphens, and no others than those that it names."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


def parse_yaml(model: type[Model], text: bytes, *, source: str) -> Model:
    """Parse and check; raises DataError that names the key and the nearest valid one."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{source}: not YAML: {error}") from error
    try:
        return model.model_validate(document)
    except ValidationError as error:
        # A key that is not known comes first: it is often the one that is missing, misspelt.
        complaints = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise _complaint(model, source, complaints[0]) from error


def _complaint(model: type[BaseModel], source: str, first: Mapping[str, Any]) -> DataError:
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    hints = {
        "extra_forbidden": nearest_key(model, first["loc"]),
        "string_type": "write it in quotes",
    }
    says = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return DataError(f"{source}: '{where}' is not a key", hint=hints["extra_forbidden"])
    return DataError(
        f"{source}: '{where}': {says[:1].lower() + says[1:]}", hint=hints.get(first["type"], "")
    )
