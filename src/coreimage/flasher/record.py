"""install.yaml on the boot partition: the record of how a disk was made.

Its structure is the original's: `meta`, `tool` and `options`. What tells of the machine that made
it - the server's address, paths, names of files - stays out, or the same disk made elsewhere would
have other bytes. Source: InstallYaml, "provisioning/provisioning.go" of snappy.
"""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints

from coreimage.errors import DataError
from coreimage.flasher.local import Kind
from coreimage.flasher.options import GIGABYTE, Again
from coreimage.flasher.packageyaml import Strict, parse_yaml
from coreimage.flasher.plan import FlashPlan

INSTALL_YAML = "install.yaml"
TOOL = "coreimage"
_MAX_SIZE = 64 << 10
_BYTES = {"GB": GIGABYTE, "bytes": 1}


class _Part(Strict):
    """A part of it: later versions of the tool may know more."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Meta(_Part):
    """What is on the disk. `timestamp` is the image's; `seed`, in hex, that of all identifiers."""

    timestamp: str
    initial_version: Annotated[str, StringConstraints(pattern=r"^[0-9]+$")]
    device: str = ""
    oem_version: str = ""
    packages: list[str] = Field(default_factory=list)
    seed: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})*$")] = ""


class Tool(_Part):
    """What made it."""

    name: str
    version: str


class Options(_Part):
    """What was asked for; parts of the machine that made it are named by their digests."""

    size: int
    size_unit: Literal["GB", "bytes"]
    channel: str = ""
    rootfs: str = ""
    device_part: str = ""
    oem: str
    enable_ssh: bool = False
    developer_mode: bool = False


class Record(_Part):
    """All of it."""

    meta: Meta
    tool: Tool
    options: Options

    @classmethod
    def from_yaml(cls, text: bytes, *, source: str) -> Self:
        """Parse one; raises DataError."""
        if len(text) > _MAX_SIZE:
            raise DataError(f"{source}: {INSTALL_YAML} is too large")
        return parse_yaml(cls, text, source=f"{source}: {INSTALL_YAML}")

    def to_yaml(self) -> str:
        """Return it as it stands on the disk; what is empty is left out."""
        lines = []
        for part, fields in self.fields().items():
            # Every JSON text is YAML too: quoting is JSON's.
            lines += [f"{part}:", *(f"  {key}: {json.dumps(fields[key])}" for key in fields)]
        return "".join(f"{line}\n" for line in lines)

    def fields(self) -> dict[str, dict[str, object]]:
        """Return the parts with all their fields that are not empty."""
        document = self.model_dump(mode="json", by_alias=True)
        return {
            part: {key: value for key, value in fields.items() if value not in ("", False, [])}
            for part, fields in document.items()
        }

    @property
    def size(self) -> int:
        """The size that was asked for, in bytes."""
        return self.options.size * _BYTES[self.options.size_unit]

    @property
    def version(self) -> int:
        """The version of the channel, 0 for a disk that is from none."""
        return int(self.meta.initial_version)

    def again(self) -> Again:
        """Return what is needed to make the same disk."""
        seed = bytes.fromhex(self.meta.seed)
        return Again(tool=self.tool.version, seed=seed, packages=self.meta.packages)


def record_of(plan: FlashPlan, *, time: int) -> Record:
    """Return the record of a plan whose image is of `time`, in UNIX seconds."""
    again = plan.again or _first(plan)
    local = {part.kind: f"sha256:{part.sha256}" for part in plan.local}
    whole = plan.size % GIGABYTE == 0
    hardware = plan.oem.info
    return Record(
        meta=Meta(
            timestamp=datetime.fromtimestamp(time, UTC).strftime("%FT%TZ"),
            initial_version=str(plan.image.version),
            device=plan.device,
            oem_version=hardware.version,
            packages=list(again.packages),
            seed=again.seed.hex(),
        ),
        tool=Tool(name=TOOL, version=again.tool),
        options=Options(
            size=plan.size // GIGABYTE if whole else plan.size,
            size_unit="GB" if whole else "bytes",
            channel=plan.channel,
            rootfs=local.get(Kind.ROOTFS, ""),
            device_part=local.get(Kind.DEVICE, ""),
            oem=hardware.name,
            enable_ssh=plan.access.ssh,
            developer_mode=plan.access.developer_mode,
        ),
    )


def _first(plan: FlashPlan) -> Again:
    # Of a disk with nothing of its own, the seed follows from what can be read back.
    derived = plan.own.nothing and not plan.access.others
    return Again(
        tool=version(TOOL),
        seed=b"" if derived else plan.seed,
        packages=[app.label for app in plan.own.apps],
    )
