"""Chambers: programs run as root of a tree, in namespaces that end with them.

Every program gets mounts, processes, host name and, without root, users of its own. Whatever ends
it, us being killed included, all that it has started is killed and all that is mounted is gone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coreimage.lib import run

_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc")
MAPPED = ("--user", "--map-auto", "--map-root-user")
# All builds have the same host name. The proc of other process namespaces would be a lie; where
# the kernel does not let us have our own, the tree goes without. /sys tells of this machine.
# The shell stays, before the last line too: a first process does not hear what would kill others.
_SCRIPT = """\
root=$1
shift
umask 022
hostname localhost
for name in dev proc; do
    [ -d "$root/$name" ] || mkdir "$root/$name"
done
mount -t tmpfs -o mode=755 none "$root/dev"
for device in null=3 zero=5 full=7 random=8 urandom=9; do
    name=${device%=*}
    # As root it must not be this machine's own: packages may change its mode.
    mknod -m 666 "$root/dev/$name" c 1 "${device#*=}" 2> /dev/null && continue
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mknod -m 666 "$root/dev/tty" c 5 0 2> /dev/null || {
    : > "$root/dev/tty"
    mount --bind /dev/tty "$root/dev/tty"
}
mkdir "$root/dev/shm" "$root/dev/pts"
chmod 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for name in stdin=0 stdout=1 stderr=2; do
    ln -s "/proc/self/fd/${name#*=}" "$root/dev/${name%=*}"
done
if mount -t devpts -o newinstance,ptmxmode=666 none "$root/dev/pts" 2> /dev/null; then
    ln -s pts/ptmx "$root/dev/ptmx"
fi
mount -t proc proc "$root/proc" 2> /dev/null || :
while [ "$1" != -- ]; do
    if [ -e "$root$2" ]; then
        [ ! -f "$1" ] || cp -p "$root$2" "$root/dev/${2##*/}.real"
        mount --bind "$1" "$root$2"
    fi
    shift 2
done
shift
env --chdir="$root" chroot "$root" "$@"
exit
"""
_BESIDE = """\
root=$1
shift
umask 022
hostname localhost
env --chdir="$root" "$@"
exit
"""
# What a tree's programs may know of ours.
_PASSED = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chamber:
    """A tree, and what its programs find in their environment."""

    tree: Path
    as_root: bool
    env: Mapping[str, str] = field(default_factory=dict)

    def inside(
        self, argv: Sequence[str | Path], *, binds: Mapping[str, Path] | None = None
    ) -> list[str]:
        """Return what runs a program with the tree as its root.

        `binds` puts files and folders of ours over those of the tree that are there; what a file
        hides can be had as /dev/NAME.real.
        """
        mounts = [word for at, what in (binds or {}).items() for word in (str(what), at)]
        words = [*mounts, "--", *map(str, argv)]
        return self._entered(_SCRIPT, words, path="/usr/sbin:/usr/bin:/sbin:/bin")

    def beside(self, argv: Sequence[str | Path]) -> list[str]:
        """Return what runs a program of ours with the rights over the tree, which it stands in."""
        return self._entered(
            _BESIDE,
            [str(each) for each in argv],
            path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        )

    def _entered(self, script: str, words: Sequence[str], *, path: str) -> list[str]:
        passed = {key: os.environ[key] for key in _PASSED if key in os.environ}
        if script is _SCRIPT:
            passed.pop("TMPDIR", None)
        env = {**passed, "HOME": "/root", "PATH": path, **self.env}
        return [
            # unshare blocks SIGTERM; and SIGKILL is what its child gets when it is gone.
            *["setpriv", "--pdeathsig", "KILL", "--"],
            *["unshare", *_NAMESPACES, *([] if self.as_root else MAPPED)],
            *["env", "--ignore-environment", *(f"{key}={value}" for key, value in env.items())],
            *["sh", "-ec", script, "sh", str(self.tree), *words],
        ]


@contextmanager
def started(
    argv: Sequence[str], *, stdin: run.Stream = run.DEVNULL, stdout: run.Stream = None
) -> Iterator[run.Process[bytes]]:
    """Start what a chamber runs; when the block is left early it is killed at once.

    The first process of a namespace does not hear SIGTERM.
    """
    with run.start(argv, stdin=stdin, stdout=stdout) as process:
        try:
            yield process
            process.wait()
        except BaseException:
            run.terminate(process, grace=0.0)
            raise
