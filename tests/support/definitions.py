"""Definitions in a folder of the test's own."""

from pathlib import Path

BASE = """\
name = "base"
title = "Base"
distribution = "debian"
default_release = "13"
packages = ["dash", "sed"]
exclude_paths = ["/usr/share/doc/*"]

[releases.13]
series = "trixie"
suites = ["trixie", "trixie-updates"]
security_suites = ["trixie-security"]
packages = ["new"]

[releases.12]
series = "bookworm"
suites = ["bookworm"]
without_packages = ["sed"]

[architectures.amd64]
bootloader = "grub"
packages = ["linux-image-amd64"]
"""
KIOSK = """\
name = "kiosk"
title = "Kiosk"
extends = "base"
packages = ["firefox"]
include_paths = ["/usr/share/doc/firefox"]
"""


def write(folder: Path, text: str, **files: str) -> Path:
    """Write a definition and files of it, `/` spelled `__` and a dot `_DOT_`; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "definition.toml").write_text(text, encoding="utf-8")
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if "hooks" in name else 0o644)
    return folder
