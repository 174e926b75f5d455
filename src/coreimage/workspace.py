"""Making a workspace: folders, keys, and a coreimage.toml that explains itself."""

from datetime import UTC, datetime
from pathlib import Path

from coreimage.config import CONFIG_NAME, Settings, Workspace, load_workspace
from coreimage.errors import CoreImageError
from coreimage.lib.files import lock, write_atomically
from coreimage.lib.progress import Progress
from coreimage.systemimage.keys import keyrings

_TEMPLATE = """\
# The workspace of coreimage. Every setting is optional; what is commented out is the default.

# Where packages come from. By default that is what this machine's own apt uses when it runs the
# same distribution, else the distribution's own mirror.
#
# [archives.debian]
# mirror = "http://mirror.example/debian"
# security_mirror = "http://mirror.example/debian-security"
# keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
#
# [archives.ubuntu]
# ppa_mirror = "http://ppa.example"
# ppa_keyrings = "keys"  # the folder that has OWNER-NAME.asc

# Archives that `--extra-archive NAME` adds to a build.
#
# [extra_archives.NAME]
# uri = "http://packages.example/debian"
# suites = ["{series}"]
# components = ["main"]
# keyring = "keys/NAME.asc"
# pin = 900

# Channels and what feeds them. A channel that is not named here is fed by convention:
# <project>/<release>/<channel> takes every publication of that project and release.
#
# accept: "any" takes every publication, "good" only those that were marked good.
# devices: each device name and the architecture of its images.
# deltabase: channels from whose newest image deltas are made, usually the channel itself.
# phase: the percentage of the devices that a new image is offered to at first.
# fullcount: how many full images stay.
# files: what images are made of, if not of a root file system and a device tarball.
[channels."debian-core/13/edge"]
project = "debian-core"
release = "13"
accept = "any"
devices = { generic_amd64 = "amd64" }

[channels."debian-core/13/stable"]
project = "debian-core"
release = "13"
accept = "good"
devices = { generic_amd64 = "amd64" }

# The server that devices are told to ask for updates. "disabled" closes a port.
[server]
host = "system-image.example"
http_port = 80
https_port = 443

# Where `coreimage serve` listens.
[serve]
host = "127.0.0.1"
port = 8080

# Compression levels: higher is smaller and slower.
[compression]
gzip = 1
xz = 1
"""


def make_workspace(root: Path, *, progress: Progress) -> Workspace:
    """Make a workspace with fresh keys in a folder; raises CoreImageError when it is one already.

    coreimage.toml comes last: a folder without it is no workspace yet, and making it again goes
    on where it was interrupted.
    """
    if (root / CONFIG_NAME).exists():
        raise CoreImageError(
            f"'{root}' is a workspace already", hint=f"edit '{root / CONFIG_NAME}' to change it"
        )
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root=root.resolve(), settings=Settings())
    workspace.gpg_home.parent.mkdir(mode=0o700, exist_ok=True)
    with lock(workspace.state / "locks/init.lock", purpose="init"):
        for folder in ("definitions", "oem", "builds", "www/cdimage", "www/system-image", "cache"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        progress.stage(f"Making the keys of '{root}'")
        keyrings.generate(workspace, progress=progress, now=datetime.now(UTC))
        write_atomically(root / CONFIG_NAME, _TEMPLATE)
    return load_workspace(workspace.root)
