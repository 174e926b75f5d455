"""Units of systemd for the services of application packages.

What a service may do is what it was given, not what it takes: it runs as a user of its own, sees
the system read-only, and writes to its state directory alone. Source: systemd.exec(5).
"""

import hashlib
import re

from coreimage.flasher.own.appinfo import AppInfo, Service

# Where `writable` is mounted on the device.
MOUNT = "/writable"
_HARDENING = """\
DynamicUser=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""
_KEYS = {"start": "ExecStart", "stop": "ExecStop", "poststop": "ExecStopPost"}


def unit_name(info: AppInfo, service: Service) -> str:
    """Return the name of a service's unit."""
    return f"{info.name}_{service.name}.service"


def user_name(info: AppInfo) -> str:
    """Return the user whom the services of a package share; no file of the system names it."""
    plain = re.fullmatch(r"[a-z0-9-]{1,27}", info.name)
    return f"app-{info.name if plain else hashlib.sha256(info.name.encode()).hexdigest()[:12]}"


def unit_text(info: AppInfo, service: Service) -> str:
    """Return the unit of a service; its files are those behind the link `current`."""
    home = f"{MOUNT}/apps/{info.name}/current"
    # Its parents must be there: /var/lib itself is never written.
    state = f"coreimage/apps/{info.name}"
    network = bool(service.caps)
    lines = [
        "[Unit]",
        f"Description={_plain(service.description or f'{service.name} of {info.name}')}",
        f"ConditionPathExists={home}/meta/package.yaml",
        *(["After=network.target"] if network else []),
        "",
        "[Service]",
        f"Type={'forking' if service.forking else 'exec'}",
        *(
            f"{_KEYS[key]}={' '.join([_word(f'{home}/{command[0]}'), *map(_word, command[1:])])}"
            for key, command in service.commands.items()
        ),
        f"TimeoutStopSec={service.stop_timeout}",
        "Restart=on-failure",
        "RestartSec=5",
        f"WorkingDirectory={home}",
        f"User={user_name(info)}",
        f"StateDirectory={state}",
        *(
            f"Environment={name}={value}"
            for name, value in {
                "SNAP_NAME": info.name,
                "SNAP_VERSION": info.version,
                "SNAP_APP_PATH": home,
                "SNAP_APP_DATA_PATH": f"/var/lib/{state}",
            }.items()
        ),
        *_HARDENING.splitlines(),
        "RestrictAddressFamilies=AF_UNIX" + (" AF_INET AF_INET6" if network else ""),
        *([] if network else ["PrivateNetwork=yes"]),
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\\", "\\\\")


def _word(text: str) -> str:
    """Return a word as systemd reads it back: nothing in it is a specifier or a variable."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
