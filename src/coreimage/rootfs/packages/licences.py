"""Licences that a package's copyright file declares, when it is written for machines.

Source of the format: Debian's "Machine-readable debian/copyright file", version 1.0 (DEP-5).
"""

import re
from collections.abc import Sequence

_FORMAT = re.compile(r"Format:\s*\S*copyright-format/1\.0", re.IGNORECASE)
_FILES = re.compile(r"^Files:", re.IGNORECASE | re.MULTILINE)
_LICENCE = re.compile(r"^License:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)


def declared_licences(copyright_file: bytes) -> Sequence[str]:
    """Return the short names of the licences of all files, sorted; none for a text for people."""
    text = copyright_file.decode(errors="replace")
    if not _FORMAT.match(text):
        return ()
    paragraphs = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))
    found = (_LICENCE.search(each) for each in paragraphs if _FILES.search(each))
    return sorted({match[1] for match in found if match})
