"""What a root filesystem build will run, as plain data.

Two stages: the packages, whose tree can be kept and used again, and what comes after them.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.definitions.definition import Selection

# Where includes and hooks lie inside the tree while it is built.
INSIDE = ".coreimage-build"
# Where the tree finds the packages, and what programs have left for later.
_DEBS = "/var/cache/apt/archives"
_LATER = "/run/coreimage"
_DPKG = "dpkg --force-unsafe-io"
_EXTRACT = """\
for deb in "$1"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb"
done | tar --extract --file=- --ignore-zeros --keep-directory-symlink \\
    --preserve-permissions --numeric-owner --anchored --no-wildcards --exclude-from="$2"
"""
_GROUPS = f"""\
for group in {_DEBS}/early/*/; do
    [ -d "$group" ] || continue
    {_DPKG} --unpack "$group"*.deb
    {_DPKG} --configure --pending
done
"""
# The kernel and initramfs-tools would each make it. No time in it is later than the kernel's: that
# of a package that has nothing to do with it would make it another one.
_INITRAMFS = f"""\
cd {_LATER} 2> /dev/null && [ -e update-initramfs ] || exit 0
sort -u update-initramfs | grep '^-c' > wanted || echo -u > wanted
kernel=$(ls -t /boot/vmlinuz-* 2> /dev/null | head -n 1)
time=$([ -z "$kernel" ] || date -r "$kernel" +%s)
if [ -n "$time" ] && [ "$time" -lt "$SOURCE_DATE_EPOCH" ]; then
    SOURCE_DATE_EPOCH=$time
fi
while read -r words; do
    update-initramfs $words < /dev/null
done < wanted
"""
# What goes to the device tarball, where dpkg, depmod and update-initramfs have left the time of the
# build: it stays the same as long as the kernel does.
_DATE = """\
kernel=$(ls -t /boot/vmlinuz-* 2> /dev/null | head -n 1)
[ -n "$kernel" ] || exit 0
for place in /boot /usr/lib/modules /usr/lib/firmware /usr/lib/linux-image-* \\
    /lib/modules /lib/firmware /lib/linux-image-*; do
    [ ! -d "$place" ] || find "$place" -newer "$kernel" -exec touch -h -r "$kernel" {} +
done
"""
_NETWORK = f"""\
[ -e /etc/resolv.conf ] || [ -L /etc/resolv.conf ] && exit
mkdir -p {_LATER}
tee {_LATER}/resolv.conf > /etc/resolv.conf
"""
_NO_NETWORK = f"""\
if [ ! -L /etc/resolv.conf ] && cmp -s {_LATER}/resolv.conf /etc/resolv.conf; then
    rm /etc/resolv.conf
fi
rm -rf {_LATER}
"""
# What mmdebstrap removes too, so that two builds agree.
_CLEAR = """\
rm -f /usr/sbin/policy-rc.d /var/cache/ldconfig/aux-cache /var/lib/dbus/machine-id \\
    /var/log/dpkg.log /var/log/alternatives.log \\
    /var/log/apt/eipp.log.xz /var/log/apt/history.log /var/log/apt/term.log
[ ! -s /etc/machine-id ] || : > /etc/machine-id
find /run -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
find /tmp -mindepth 1 -maxdepth 1 -exec rm -rf {} +
"""
_STUB = """\
#!/bin/sh
# Images are made once, when all packages are set up.
case "$*" in
    -c* | -u*) ;;
    *) exec "/dev/${0##*/}.real" "$@" ;;
esac
mkdir -p /run/coreimage
echo "$*" >> "/run/coreimage/${0##*/}"
"""
_COMPILE_STUB = """\
#!/bin/sh
# Modules are compiled once, when all packages are set up.
case "$*" in
    *-O* | *-X* | *\\* | '') exec "/dev/${0##*/}.real" "$@" ;;
esac
mkdir -p /run/coreimage
echo "$*" >> "/run/coreimage/${0##*/}"
"""
STUBS = {"/usr/bin/py3compile": _COMPILE_STUB, "/usr/sbin/update-initramfs": _STUB}
# py3compile starts one interpreter to find files and one to compile them, for each package. Here
# all find theirs in one process, and share the compiling one; where py3compile is another one than
# is known, it is run as often as it was asked for.
_COMPILE = """\
import importlib.machinery, importlib.util, subprocess, sys

class Kept(dict):
    def values(self):
        return ()

program = "/usr/bin/py3compile"
with open("/run/coreimage/py3compile") as file:
    calls = list(dict.fromkeys(line.rstrip() for line in file))
loader = importlib.machinery.SourceFileLoader("py3compile", program)
spec = importlib.util.spec_from_loader("py3compile", loader)
sys.dont_write_bytecode = True
module = importlib.util.module_from_spec(spec)
loader.exec_module(module)
if not (module.__dict__.get("WORKERS") == module.__dict__.get("STDINS") == {}):
    for call in calls:
        subprocess.run([program, *call.split()], check=True)
    sys.exit()
module.WORKERS = Kept()
for call in calls:
    sys.argv = [program, *call.split()]
    try:
        module.main()
    except SystemExit as end:
        if end.code:
            raise
for worker in dict.values(module.WORKERS):
    worker.communicate()
    if worker.returncode:
        sys.exit(worker.returncode)
"""
_LAY_OVER = [
    *["tar", "--extract", "--file=-", "--directory=/"],
    # A folder that is there stays as it is, also one that is reached by a link, as /lib is.
    *["--no-overwrite-dir", "--keep-directory-symlink"],
]


class Where(StrEnum):
    """Where a step runs: with the tree as its root, or on this machine beside it."""

    INSIDE = "inside"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One program; `binds` are laid over files of the tree meanwhile.

    It runs `together` with the step before it when the two have nothing to do with each other.
    `source` is the definition's file that it is a copy of.
    """

    title: str
    argv: Sequence[str]
    where: Where = Where.INSIDE
    stdin: Path | None = None
    binds: Mapping[str, Path] = field(default_factory=dict)
    together: bool = False
    source: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a build keeps what its steps take in."""

    scratch: Path
    tree: Path

    @property
    def debs(self) -> Path:
        """Packages without compression: essential/, early/N/, last/."""
        return self.tree.parent / "debs"

    @property
    def excluded(self) -> Path:
        """The members of essential packages that are left out, a line each."""
        return self.scratch / "excluded"

    @property
    def hooks(self) -> Path:
        """Hooks that run beside the tree."""
        return self.scratch / "binary-hooks"

    def overlay(self, name: str) -> Path:
        """Return the tar of an overlay: base, early, marks, late."""
        return self.scratch / f"{name}.tar"

    def stub(self, program: str) -> Path:
        """Return what takes the place of a program."""
        return self.scratch / f"stub-{Path(program).name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsPlan:
    """The steps of both stages, the environment of all of them, and where things lie.

    The package stage is `essential`, which needs the essential packages only, and `packages`.
    """

    essential: Sequence[Step]
    packages: Sequence[Step]
    late: Sequence[Step]
    env: Mapping[str, str]
    layout: Layout
    as_root: bool
    epoch: int

    @property
    def pack(self) -> list[str]:
        """What writes the tree as a tar stream to standard output, run beside the tree."""
        return pack_argv(self.epoch)


def pack_argv(epoch: int) -> list[str]:
    """Return tar's argv for a tree: names sorted, no time later than `epoch`, numeric owners."""
    return [
        *["tar", "--create", "--file=-", "--sort=name", "--numeric-owner", "--one-file-system"],
        *["--format=pax", f"--mtime=@{epoch}", "--clamp-mtime"],
        *["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime"],
        *["--xattrs", "--exclude=./dev/*", "--exclude=./proc/*"],
        # Names as they are published, so that headers can be passed on; links stay as they are.
        *["--transform=s,^\\./\\(.\\),\\1,S", "."],
    ]


def plan_build(
    selection: Selection,
    archive: Archive,
    *,
    as_root: bool,
    published_at: datetime,
    scratch: Path,
    temporary: Path,
) -> RootfsPlan:
    """Return what builds the tree.

    `scratch` receives the overlays; the tree and its packages come to lie in `temporary`.
    """
    layout = Layout(scratch=scratch, tree=temporary / "tree")
    epoch = int(published_at.timestamp())
    return RootfsPlan(
        essential=_essential_steps(selection, layout),
        packages=_package_steps(layout),
        late=_late_steps(selection, archive.apt_files(), layout),
        env={
            "SOURCE_DATE_EPOCH": str(epoch),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "DEBCONF_NONINTERACTIVE_SEEN": "true",
            **selection.facts,
        },
        layout=layout,
        as_root=as_root,
        epoch=epoch,
    )


def _essential_steps(selection: Selection, layout: Layout) -> list[Step]:
    return [
        Step(
            title="lay out the tree",
            argv=["tar", "--extract", "--file=-", "--preserve-permissions"],
            where=Where.BESIDE,
            stdin=layout.overlay("base"),
        ),
        Step(
            title="extract the essential packages",
            argv=_shell(_EXTRACT, str(layout.debs / "essential"), str(layout.excluded)),
            where=Where.BESIDE,
        ),
        Step(
            title="install the essential packages",
            argv=_shell(f"{_DPKG} --force-depends --install {_DEBS}/essential/*.deb"),
            binds={_DEBS: layout.debs},
        ),
        Step(title="includes before packages", argv=_LAY_OVER, stdin=layout.overlay("early")),
        *_early_steps(selection),
    ]


def _package_steps(layout: Layout) -> list[Step]:
    debs = {_DEBS: layout.debs}
    stubs = {program: layout.stub(program) for program in STUBS}
    return [
        Step(title="install what others need first", argv=_shell(_GROUPS), binds=debs),
        Step(
            title="unpack the other packages",
            argv=_shell(f'[ -z "$(ls {_DEBS}/last)" ] || {_DPKG} --unpack {_DEBS}/last/*.deb'),
            binds=debs,
        ),
        Step(
            title="set up the packages",
            argv=_shell(f"{_DPKG} --configure --pending"),
            binds=stubs,
        ),
        Step(
            title="compile Python modules",
            argv=_shell(f'[ ! -e {_LATER}/py3compile ] || exec python3 -c "$1"', _COMPILE),
        ),
        Step(title="make the initramfs", argv=_shell(_INITRAMFS), together=True),
        Step(title="mark what is there for others", argv=_LAY_OVER, stdin=layout.overlay("marks")),
        Step(title="forget what was put off", argv=["rm", "-rf", _LATER]),
    ]


def _early_steps(selection: Selection) -> list[Step]:
    """Return what runs after the essential packages are set up and before the others."""
    hooks = [
        Step(title=name, argv=[f"/{INSIDE}/{name}"], source=path)
        for name, path in selection.hooks("chroot_early").items()
    ]
    pins = Step(title="pin users and groups", argv=["sh", f"/{INSIDE}/pin-ids"])
    return [
        *([pins] if selection.pins() is not None else []),
        *(
            Step(
                title=f"preseed {name}",
                argv=["debconf-set-selections", f"/{INSIDE}/preseed/{name}"],
            )
            for name in selection.preseeds()
        ),
        *_with_network(hooks),
    ]


def _late_steps(selection: Selection, extra: Iterable[str], layout: Layout) -> list[Step]:
    """Return what runs on the finished tree: hooks inside, clearing up, hooks outside."""
    archives = [f"/etc/apt/{name}" for name in extra]
    hooks = [
        Step(title=name, argv=[f"/{INSIDE}/{name}"], source=path)
        for name, path in selection.hooks("chroot").items()
    ]
    dated = [Step(title="date what belongs to the kernel", argv=_shell(_DATE))]
    return [
        Step(title="includes", argv=_LAY_OVER, stdin=layout.overlay("late")),
        *_with_network(hooks),
        # Extra archives are for the build; an image says by includes where its updates come from.
        Step(title="remove what the build needed", argv=["rm", "-rf", f"/{INSIDE}", *archives]),
        *(
            Step(
                title=name,
                argv=[str(layout.hooks / name), str(layout.tree)],
                where=Where.BESIDE,
                source=path,
            )
            for name, path in selection.hooks("binary").items()
        ),
        *(dated if selection.has_device_tarball else []),
        Step(title="clear up", argv=_shell(_CLEAR)),
    ]


def _with_network(hooks: Sequence[Step]) -> list[Step]:
    """Return hooks with steps around them that let them find other hosts by name."""
    if not hooks:
        return []
    # Where this machine has none, nothing is found.
    resolver = Path("/etc/resolv.conf")
    return [
        Step(
            title="let hooks use the network",
            argv=_shell(_NETWORK),
            stdin=resolver,
        ),
        *hooks,
        Step(title="forget this machine's network", argv=_shell(_NO_NETWORK)),
    ]


def _shell(script: str, *words: str) -> list[str]:
    return ["sh", "-ec", script.strip(), *(["sh", *words] if words else [])]


def step_lines(plan: RootfsPlan) -> Iterable[str]:
    """Yield the steps of a plan as text, those of the second stage after an empty line."""
    for number, steps in enumerate(([*plan.essential, *plan.packages], plan.late)):
        if number:
            yield ""
        for step in steps:
            source = f" < {shlex.quote(str(step.stdin))}" if step.stdin else ""
            meanwhile = " (meanwhile)" if step.together else ""
            argv = shlex.join(step.argv)
            yield f"{step.where.value:<7} {step.title}{meanwhile}: {argv}{source}"
