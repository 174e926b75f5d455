"""User data for cloud-init: what it is, by its first line, and whether that can be read.

Source: cloud-init's reference, "User data formats".
"""

from pathlib import Path

import yaml

from coreimage.errors import DataError
from coreimage.lib.fetch import open_regular

SEED = "system-data/var/lib/cloud/seed/nocloud"
_MAX_FILE = 1 << 20
_STARTS = (
    "#!",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#include",
    "## template: jinja",
    "Content-Type: multipart/",
)


def read_user_data(path: Path) -> str:
    """Read user data; raises DataError for what cloud-init would ignore or not understand."""
    with open_regular(path) as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise DataError(f"'{path}' is too large for user data")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not text: {error}") from error
    if text.split("\n", 1)[0].strip() == "#cloud-config":
        _check_config(text, str(path))
    elif not text.startswith(_STARTS):
        raise DataError(
            f"'{path}' does not begin as user data does",
            hint="its first line is '#cloud-config', or that of a script",
        )
    return text


def _check_config(text: str, source: str) -> None:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{source}: not YAML: {error}") from error
    if document is not None and not isinstance(document, dict):
        raise DataError(f"{source}: a #cloud-config has keys and values")
