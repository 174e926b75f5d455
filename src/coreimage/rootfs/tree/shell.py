"""A shell in a built tree: unpacked into a room of its own, removed when the shell has ended."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from coreimage.errors import DataError
from coreimage.lib import run
from coreimage.lib.files import require_space
from coreimage.rootfs.tree.namespace import require_user_namespace, unpacking_room

_ROOM_FOR_TREE = 2 << 30
_HINT = "name a rootfs tarball (.tar.gz), a tree, or the number of a build"
_MAPPED = ("--user", "--map-auto", "--map-root-user")
# Runs in a mount namespace of its own: the mounts are gone with it. Where the kernel does not let
# us have a /proc, the shell goes without. As in a chamber the first process is not the command;
# it removes the folders that the tree did not have.
_ENTER = """\
root=$1
shift
made=
for name in dev proc; do
    [ -d "$root/$name" ] || ! mkdir "$root/$name" 2> /dev/null || made="$made $name"
done
if mount -t tmpfs -o mode=755 none "$root/dev"; then
    for name in null zero full random urandom tty; do
        : > "$root/dev/$name"
        mount --bind "/dev/$name" "$root/dev/$name"
    done
fi
mount -t proc proc "$root/proc" 2> /dev/null || :
status=0
env --chdir="$root" chroot "$root" "$@" || status=$?
for name in $made; do
    umount --lazy "$root/$name" 2> /dev/null || :
    rmdir "$root/$name" || :
done
exit $status
"""


def open_shell(target: Path, command: Sequence[str]) -> int:
    """Run a command in a tree, or in a tarball of one, and return its exit status.

    It has our terminal. What is changed in a tarball's tree is lost; a directory is entered as it
    is. Raises DataError, RightsError.
    """
    if target.is_dir() and not _is_tree(target):
        raise DataError(f"'{target}' is no tree: it has no etc/ with usr/ or bin/", hint=_HINT)
    as_root = os.geteuid() == 0
    if not as_root:
        require_user_namespace()
    with ExitStack() as stack:
        if target.is_dir():
            tree = target.resolve()
        else:
            room = stack.enter_context(unpacking_room(_ROOM_FOR_TREE, as_root=as_root))
            require_space(room, _ROOM_FOR_TREE, purpose="the tree")
            tree = room / "tree"
            _unpack(target, tree, as_root=as_root)
        stack.enter_context(_interrupts_left_to_the_child())
        process = stack.enter_context(
            run.start(
                shell_argv(tree, command, as_root=as_root),
                stdin=None,
                env={"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                foreground=True,
            )
        )
        status = process.wait()
    return status if status >= 0 else 128 - status


def _is_tree(folder: Path) -> bool:
    # Links would be those of this machine.
    return (folder / "etc").is_dir() and any(
        (folder / name).is_dir() and not (folder / name).is_symlink() for name in ("usr", "bin")
    )


def shell_argv(tree: Path, command: Sequence[str], *, as_root: bool) -> list[str]:
    """Return what runs a command in a tree: in namespaces for mounts, processes and users."""
    return [
        *["unshare", "--mount", "--pid", "--fork", "--kill-child"],
        *([] if as_root else _MAPPED),
        *["sh", "-ec", _ENTER, "sh", str(tree), *command],
    ]


def _unpack(tarball: Path, tree: Path, *, as_root: bool) -> None:
    tree.mkdir(mode=0o755)
    prefix = [] if as_root else ["unshare", *_MAPPED]
    unpack = ["tar", "--extract", "--gzip", "--numeric-owner", "--same-owner", "--same-permissions"]
    # The tarball is opened by us: the namespace's root may not be able to read it.
    with tarball.open("rb") as source:
        done = run.run(
            [*prefix, *unpack, "--directory", tree, "--file", "-"], stdin=source, check=False
        )
    if done.status:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(
            f"'{tarball}' cannot be unpacked: {said[-1] if said else 'tar failed'}",
            hint=_HINT,
        )


@contextmanager
def _interrupts_left_to_the_child() -> Iterator[None]:
    """Let Ctrl-C reach the program at the terminal only."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
