"""The machine as a whole: every check, in the order of the road."""

from datetime import UTC, datetime
from pathlib import Path

from coreimage.checks import devices, freshness, namespaces, programs, resources
from coreimage.checks.check import Check


def examine(workspace: Path, *, host: str) -> list[Check]:
    """Return every check of this machine; `workspace` is where the space is wanted.

    `host` is the machine's architecture.
    """
    return [
        programs.check_python(),
        *(programs.check_program(program) for program in programs.PROGRAMS),
        *resources.check_grub_modules(),
        resources.check_firmware(),
        resources.check_keyring(),
        *namespaces.check_namespaces(namespaces.current_user()),
        *resources.check_foreign_arches(host),
        *devices.check_devices(),
        *resources.check_accelerators(),
        resources.check_space("space in the workspace", workspace, resources.WORKSPACE_SPACE),
        *resources.check_temporary(),
        resources.check_memory(),
        *freshness.check_freshness(workspace, now=datetime.now(UTC)),
    ]
