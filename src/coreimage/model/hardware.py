"""hardware.yaml: what the device tarball tells the flasher and the updater about booting.

The file is flat, one `key: value` a line; the device reads it without a YAML library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coreimage.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Paths inside the device tarball, and the kind of disk that they are meant for."""

    kernel: str
    initrd: str
    bootloader: str
    partition_layout: str = "system-AB"
    dtbs: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """Return the text of hardware.yaml."""
        fields = {
            "kernel": self.kernel,
            "initrd": self.initrd,
            "dtbs": self.dtbs,
            "partition-layout": self.partition_layout,
            "bootloader": self.bootloader,
            **self.extra,
        }
        return "".join(f"{key}: {value}\n" for key, value in fields.items() if value)

    @classmethod
    def from_yaml(cls, text: str) -> "Hardware":
        """Parse hardware.yaml; raises DataError that names the line or the missing key."""
        fields: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            content = line.split(" #")[0].strip()
            if not content or content.startswith(("#", "---")):
                continue
            key, colon, value = content.partition(":")
            if not colon or not key.strip() or line[0].isspace():
                raise DataError(f"hardware.yaml:{number}: expected 'key: value', found '{content}'")
            fields[key.strip()] = value.strip().strip("'\"")
        for key in ("kernel", "initrd", "bootloader"):
            if not fields.get(key):
                raise DataError(f"hardware.yaml has no '{key}'")
        return cls(
            kernel=fields.pop("kernel"),
            initrd=fields.pop("initrd"),
            bootloader=fields.pop("bootloader"),
            partition_layout=fields.pop("partition-layout", "system-AB"),
            dtbs=fields.pop("dtbs", ""),
            extra=fields,
        )
