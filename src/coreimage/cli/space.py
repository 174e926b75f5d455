"""What commands work on when they are not told: the nearest workspace, this machine's arch."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreimage.config import Workspace

# Debian's words for what the kernel calls a machine.
_ARCHES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
}


def host_arch() -> str:
    """Return this machine's architecture in Debian's words; DEB_HOST_ARCH overrides it."""
    machine = platform.machine()
    return os.environ.get("DEB_HOST_ARCH") or _ARCHES.get(machine, machine)


def load_space(explicit: Path | None) -> "Workspace":
    """Return the workspace that was named, or the nearest; raises NotFoundError, ConfigError."""
    from coreimage import config

    return config.load_workspace(config.find_root(Path.cwd(), explicit))


def find_space(explicit: Path | None) -> "Workspace | None":
    """Return the workspace, or None when there is none and none was named."""
    from coreimage.errors import NotFoundError

    try:
        return load_space(explicit)
    except NotFoundError:
        if explicit is not None:
            raise
        return None
