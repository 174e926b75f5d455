"""Manifests: which packages a tree holds, a line each, name and version separated by a tab."""

from debian.deb822 import Deb822

from coreimage.errors import DataError


def manifest(status: bytes) -> str:
    """Return the manifest from dpkg's status file; raises DataError for unfinished packages."""
    lines = []
    text = status.decode(errors="replace")
    for paragraph in Deb822.iter_paragraphs(text, use_apt_pkg=False):
        name, state = paragraph.get("Package", ""), paragraph.get("Status", "")
        if state != "install ok installed":
            if state.endswith(("not-installed", "config-files")):
                continue
            raise DataError(f"package '{name}' of the built tree is '{state}'")
        same = paragraph.get("Multi-Arch") == "same"
        shown = f"{name}:{paragraph.get('Architecture')}" if same else name
        lines.append(f"{shown}\t{paragraph.get('Version')}\n")
    if not lines:
        raise DataError("the built tree has no packages")
    return "".join(sorted(lines))
