"""What one machine has of its own, from the command line: who may log in, its name, networks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreimage.flasher.own.machine import Own
    from coreimage.flasher.provision import Access


def own_of(
    hostname: str | None, networks: list[Path], credentials: list[str], cloud_init: Path | None
) -> "Own":
    """Return what a machine has of its own; raises what is wrong with any of it."""
    from coreimage.flasher.own.cloudinit import read_user_data
    from coreimage.flasher.own.machine import Own, check_hostname, read_credential
    from coreimage.flasher.own.network import read_network

    return Own(
        hostname=check_hostname(hostname) if hostname is not None else "",
        networks=[each for path in networks for each in read_network(path)],
        credentials=dict(read_credential(spec) for spec in credentials),
        user_data=read_user_data(cloud_init) if cloud_init is not None else "",
    )


@contextmanager
def access_of(
    key_files: list[Path],
    *,
    enable_ssh: bool,
    developer_mode: bool,
    user: str,
    target: Path | None,
    scratch: Path,
) -> Iterator[tuple["Access", Path | None]]:
    """Yield who may log in, and the private key that will lie beside `target` if one is made."""
    from coreimage.flasher.disk.newdisk import check_output
    from coreimage.flasher.provision import (
        Access,
        check_user,
        fresh_key_pair,
        key_pair_paths,
        read_keys,
    )

    keys = [key for path in key_files for key in read_keys(path)]
    private_key = None
    with ExitStack() as stack:
        if developer_mode and not keys and target is not None:
            check_output(target)
            private_key = key_pair_paths(target)[0]
            keys = [stack.enter_context(fresh_key_pair(target, scratch=scratch, user=user))]
        access = Access(
            ssh=enable_ssh or developer_mode or bool(keys),
            keys=keys,
            developer_mode=developer_mode,
            user=check_user(user),
        )
        yield access, private_key
