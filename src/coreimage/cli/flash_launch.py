"""Whether a new disk can be started by kvm here: a guest finds out while the disk is made."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from coreimage.errors import CoreImageError


@contextmanager
def asking_for_kvm(*, wanted: bool) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether kvm works, as `coreimage boot` decides it.

    Asking takes about a second at most, in which the block goes on. Nothing is asked unless that is
    `wanted`.
    """
    if not wanted:
        yield lambda: False
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(kvm_works).result


def kvm_works() -> bool:
    """Return whether the program kvm is there and starts guests at least as fast as without KVM."""
    from coreimage.boottest.accelerator import KVM_DEVICE, Name, detect, device_problem
    from coreimage.cli.space import host_arch
    from coreimage.lib import run
    from coreimage.lib.arches import is_native

    if run.find_program("kvm") is None or device_problem(KVM_DEVICE):
        return False
    try:
        return detect(native=is_native("amd64", host=host_arch())).name is Name.KVM
    except CoreImageError:  # no guest can be started at all
        return False
