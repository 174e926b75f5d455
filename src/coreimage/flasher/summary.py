"""What a person is told: the plan beforehand, the summary and the way to start it afterwards."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coreimage.flasher.local import Kind
from coreimage.flasher.own.machine import Own
from coreimage.flasher.plan import FlashPlan
from coreimage.flasher.resolve import short_channel

_MEMORY = 768
_SSH_PORT = 8022
_NO_CHANNEL = (
    "This disk is not from a channel: it has no version, no server has signed it, and it will get "
    "no updates."
)
_USUAL_SECTOR = 512
# A PC needs no more than its disk; the others must be told what they are.
_PROGRAMS = {
    "amd64": "qemu-system-x86_64",
    "i386": "qemu-system-i386",
    "arm64": (
        "qemu-system-aarch64 -machine virt -cpu cortex-a57 -nographic "
        "-bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
    ),
}
_PARTS = {Kind.ROOTFS: "Root file system", Kind.DEVICE: "Device part"}


def launcher(plan: FlashPlan, *, kvm: bool) -> str:
    """Return the command that starts such a disk, empty for boards that QEMU does not have.

    `kvm` tells whether the program of that name works here: it is the one for PCs of 64 bits.
    """
    arch = plan.oem.info.oem.hardware.architecture
    if plan.oem.info.oem.hardware.bootloader != "grub" or not plan.medium.form.plain:
        return ""
    if plan.medium.card is not None:
        return ""
    if arch not in _PROGRAMS or plan.layout.sector_size != _USUAL_SECTOR:
        return ""
    return "kvm" if kvm and arch == "amd64" else _PROGRAMS[arch]


def summary_lines(plan: FlashPlan, *, program: str, private_key: Path | None = None) -> list[str]:
    """Return the summary; `private_key` is the one that was made for this image."""
    output = shlex.quote(str(plan.output))
    network = (
        [f"-nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{_SSH_PORT}-:22"]
        if plan.access.ssh
        else []
    )
    drive = output
    if plan.oem.info.oem.hardware.architecture == "arm64":
        drive = f"-drive if=virtio,format=raw,file={output}"
    command = " ".join([program, f"-m {_MEMORY}", *network, drive])
    port = f" --ssh-port {_SSH_PORT}" if plan.access.ssh else ""
    lines = [
        "New image complete",
        "Summary:",
        f" Output: {plan.medium.card or plan.output}",
        f" Architecture: {plan.oem.info.oem.hardware.architecture}",
        *_origin(plan),
        *(f" Package: {app.label}" for app in plan.own.apps),
        *(f" SSH key: {key.fingerprint} {key.comment}".rstrip() for key in plan.access.keys),
    ]
    if program:
        lines += [f"Launch by running: {command}", f"or: coreimage boot {output}{port}"]
    if program and not plan.access.nobody:
        identity = f"-i {shlex.quote(str(private_key))} " if private_key else ""
        lines.append(
            f"Log in by running: ssh {identity}-p {_SSH_PORT} {plan.access.user}@localhost"
        )
    return [*lines, *_warnings(plan)]


def _origin(plan: FlashPlan) -> list[str]:
    found = [f" {_PARTS[part.kind]}: {part.label}" for part in plan.local]
    if not plan.from_channel:
        return found
    return [
        f" Channel: {short_channel(plan.channel)}",
        f" Version: {plan.image.version}",
        *found,
    ]


def _warnings(plan: FlashPlan) -> list[str]:
    """Return what parts of this machine mean for the life of the disk."""
    if not plan.from_channel:
        return [
            _NO_CHANNEL,
            "To have updates, publish and import the build, and flash the channel's image.",
        ]
    if plan.local:
        return [
            "Its device part is not the channel's: the next update brings the channel's own.",
        ]
    return []


def plan_lines(plan: FlashPlan) -> list[str]:
    """Return what would be done, for --dry-run."""
    lines = [
        f"{plan.medium.card or plan.output}: a disk of {plan.layout.size / 1e9:g} GB",
        *_plan_origin(plan),
        f"  oem: {plan.oem.info.name} {plan.oem.info.version}",
        f"  download: {plan.download_size / 1e6:.2f} MB of {plan.image.size / 1e6:.2f} MB",
    ]
    lines += [f"    {file.path} ({file.size} bytes)" for file in plan.image.files]
    lines += ["  partitions:"]
    lines += [
        f"    {each.name}: {each.size >> 20} MiB at sector {each.start // plan.layout.sector_size}"
        for each in plan.layout.partitions
    ]
    lines += [f"  log in: {who}" for who in _logins(plan)]
    return lines + [f"  {what}" for what in _own_lines(plan.own)]


def _own_lines(own: Own) -> list[str]:
    """Return what the machine has of its own; of what is secret, only the names."""
    lines = [
        f"package: {app.label}"
        + "".join(f"\n    service {service.name}" for service in app.info.services)
        for app in own.apps
    ]
    lines += [f"host name: {own.hostname}"] if own.hostname else []
    lines += [f"network: {each.name}" for each in own.networks]
    lines += [f"credential: {name}" for name in sorted(own.credentials)]
    return lines + (["user data for cloud-init"] if own.user_data else [])


def _plan_origin(plan: FlashPlan) -> list[str]:
    found = [f"  {_PARTS[part.kind].lower()}: {part.label}, {part.path}" for part in plan.local]
    if not plan.from_channel:
        return found
    return [
        f"  image: version {plan.image.version} of '{plan.channel}' for '{plan.device}'",
        f"  server: {plan.server}",
        *found,
    ]


def _logins(plan: FlashPlan) -> list[str]:
    if plan.access.nobody:
        return ["as cloud-init sets up"] if plan.own.user_data else ["nobody"]
    return [
        f"{plan.access.user}, by {key.fingerprint} {key.comment}".rstrip()
        for key in plan.access.keys
    ]


def plan_fields(plan: FlashPlan) -> Mapping[str, Any]:
    """Return plan or result for machines."""
    return {
        "output": str(plan.medium.card or plan.output),
        "format": plan.medium.form.compression or plan.medium.form.format.value,
        "size": plan.layout.size,
        "architecture": plan.oem.info.oem.hardware.architecture,
        "server": plan.server,
        "channel": plan.channel,
        "device": plan.device,
        "version": plan.image.version,
        "version_detail": plan.image.version_detail,
        "download_size": plan.download_size,
        "local": [
            {"part": part.kind.value, "path": str(part.path), "sha256": part.sha256}
            for part in plan.local
        ],
        "oem": {"name": plan.oem.info.name, "version": plan.oem.info.version},
        "files": [
            {"path": file.path, "size": file.size, "sha256": file.checksum}
            for file in plan.image.files
        ],
        "partitions": [
            {"name": each.name, "start": each.start, "size": each.size}
            for each in plan.layout.partitions
        ],
        "packages": [{"name": app.info.name, "version": app.info.version} for app in plan.own.apps],
        "user": plan.access.user,
        "hostname": plan.own.hostname,
        "networks": [each.name for each in plan.own.networks],
        "credentials": sorted(plan.own.credentials),
        "cloud_init": bool(plan.own.user_data),
        "ssh": plan.access.ssh,
        "developer_mode": plan.access.developer_mode,
        "ssh_keys": [key.fingerprint for key in plan.access.keys],
    }
