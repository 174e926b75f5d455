import copy
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from coreimage.errors import DataError
from coreimage.lib import compress, run, tar
from coreimage.model.hardware import Hardware
from coreimage.rootfs.tarballs.split import SplitResult, split

EPOCH = 1795392000
STATUS = b"Package: dash\nStatus: install ok installed\n"
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\xff\x00\x00\x00\n=\x00\x00"


def member(
    name: str, kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    data: bytes = fields.pop("data", b"")
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime, info.mode = kind, len(data), EPOCH, 0o644
    info.uname, info.gname = "root", "root"
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.LNKTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind, linkname=target)


KERNEL = [
    member("./boot/vmlinuz-6.1.0-1-cloud", data=b"kernel"),
    member("./boot/initrd.img-6.1.0-1-cloud", data=b"initrd"),
]
TREE = [
    member("./", tarfile.DIRTYPE, mode=0o755),
    link("./bin", "usr/bin", tarfile.SYMTYPE),
    link("./lib", "usr/lib", tarfile.SYMTYPE),
    member("./boot/", tarfile.DIRTYPE, mode=0o755),
    *KERNEL,
    member("./boot/config-6.1.0-1-cloud", data=b"config"),
    member("./boot/System.map-6.1.0-1-cloud", data=b"map"),
    member("./dev/", tarfile.DIRTYPE, mode=0o755),
    member("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    link("./initrd.img", "boot/initrd.img-6.1.0-1-cloud", tarfile.SYMTYPE),
    link("./vmlinuz.old", "boot/vmlinuz-6.1.0-1-cloud", tarfile.SYMTYPE),
    member("./usr/bin/ping", data=b"ping", mode=0o755),
    link("./usr/bin/ping4", "./usr/bin/ping"),
    member("./usr/bin/su", data=b"su", mode=0o4755, uid=0, gid=8),
    member("./usr/lib/modules/", tarfile.DIRTYPE, mode=0o755),
    member("./usr/lib/modules/6.1.0-1-cloud/kernel/a.ko", data=b"module"),
    link("./usr/lib/modules/6.1.0-1-cloud/build", "/usr/src/linux", tarfile.SYMTYPE),
    member("./usr/lib/modules-load.d/a.conf", data=b"a"),
    member("./usr/lib/firmware/a.bin", data=b"firmware"),
    link("./usr/lib/firmware/b.bin", "./usr/lib/firmware/a.bin"),
    member("./var/lib/dpkg/status", data=STATUS),
    member("./srv/" + "long" * 50, data=b"long"),
    member("./srv/\udcff\u00e4", data=b"bytes"),
]
TREE[12][0].pax_headers = {
    "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
    "SCHILY.xattr.user.comment": "hello",
    "comment": "dropped",
}


def stream(members: list[tuple[tarfile.TarInfo, bytes]]) -> io.BytesIO:
    output = io.BytesIO()
    with tarfile.open(
        fileobj=output, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as archive:
        for info, data in members:
            archive.addfile(copy.deepcopy(info), io.BytesIO(data))
    output.seek(0)
    return output


class Halves:
    def __init__(
        self,
        folder: Path,
        members: list[tuple[tarfile.TarInfo, bytes]],
        bootloader: str = "grub",
    ) -> None:
        self.rootfs, self.device = folder / "rootfs.tar.gz", folder / "device.tar.gz"
        self.result: SplitResult = split(
            stream(members),
            rootfs=self.rootfs,
            device=self.device,
            bootloader=bootloader,
            level=1,
        )

    @staticmethod
    def read(path: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
        with compress.opened(path) as opened, tar.reading(opened, archive="x") as archive:
            found = {}
            for each in archive:
                content = archive.extractfile(each) if each.isreg() else None
                found[each.name] = (each, content.read() if content else b"")
            return found


@pytest.fixture
def halves(tmp_path: Path) -> Halves:
    return Halves(tmp_path, TREE)


def test_what_depends_on_the_machine_goes_to_the_device_tarball(halves: Halves) -> None:
    found = halves.read(halves.device)
    assert {name: data for name, (_, data) in found.items() if data} == {
        "assets/vmlinuz": b"kernel",
        "assets/initrd.img": b"initrd",
        "system/boot/config-6.1.0-1-cloud": b"config",
        "system/boot/System.map-6.1.0-1-cloud": b"map",
        "system/usr/lib/modules/6.1.0-1-cloud/kernel/a.ko": b"module",
        "system/usr/lib/firmware/a.bin": b"firmware",
        "hardware.yaml": found["hardware.yaml"][1],
    }
    hardware = Hardware.from_yaml(found["hardware.yaml"][1].decode())
    assert (hardware.kernel, hardware.bootloader) == ("assets/vmlinuz", "grub")
    build = found["system/usr/lib/modules/6.1.0-1-cloud/build"][0]
    assert (build.issym(), build.linkname) == (True, "/usr/src/linux")
    firmware = found["system/usr/lib/firmware/b.bin"][0]
    assert (firmware.islnk(), firmware.linkname) == (True, "system/usr/lib/firmware/a.bin")


def test_the_rest_is_the_rootfs(halves: Halves) -> None:
    found = halves.read(halves.rootfs)
    assert list(found) == [
        *(".", "bin", "lib", "boot", "dev", "usr/bin/ping", "usr/bin/ping4", "usr/bin/su"),
        *("usr/lib/modules", "usr/lib/modules-load.d/a.conf", "var/lib/dpkg/status"),
        *("srv/" + "long" * 50, "srv/\udcff\u00e4"),
    ]
    assert found["usr/bin/ping4"][0].linkname == "usr/bin/ping"
    assert found["usr/bin/su"][0].mode == 0o4755
    assert found["usr/bin/su"][0].gid == 8
    assert found["bin"][0].linkname == "usr/bin"
    ping = found["usr/bin/ping"][0]
    assert tar.xattrs(ping) == {"security.capability": CAPABILITY, "user.comment": b"hello"}
    assert {each.uname + each.gname for each, _ in found.values()} == {""}


def test_the_result_tells_what_went_by(halves: Halves) -> None:
    assert halves.result.status == STATUS
    assert halves.result.kernels == {
        "vmlinuz": "6.1.0-1-cloud",
        "initrd.img": "6.1.0-1-cloud",
    }
    assert halves.result.entries == len(TREE) - 3
    assert halves.result.device_size == len(b"kernelinitrdconfigmapmodulefirmware")


def test_gnu_tar_unpacks_both_halves(halves: Halves, tmp_path: Path) -> None:
    for path in (halves.rootfs, halves.device):
        place = tmp_path / path.name.split(".")[0]
        place.mkdir()
        run.run(["tar", "--extract", "--no-same-owner", "--file", path, "--directory", place])
    names = [tmp_path / "rootfs/usr/bin" / name for name in ("ping", "ping4")]
    assert names[0].samefile(names[1])
    firmware = tmp_path / "device/system/usr/lib/firmware"
    assert (firmware / "a.bin").samefile(firmware / "b.bin")
    assert not any((tmp_path / "rootfs/dev").iterdir())


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        halves = Halves(folder, TREE)
        made.append((halves.rootfs.read_bytes(), halves.device.read_bytes()))
    assert made[0] == made[1]


def test_modules_are_found_before_the_merge_of_usr(tmp_path: Path) -> None:
    members = [*KERNEL, member("./lib/modules/6.1/a.ko"), member("./lib/firmware/a")]
    found = Halves.read(Halves(tmp_path, members).device)
    assert {"system/lib/modules/6.1/a.ko", "system/lib/firmware/a"} <= set(found)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([], "has no vmlinuz in /boot"),
        (KERNEL[:1], "has no initrd.img in /boot"),
        ([*KERNEL, member("boot/vmlinuz-6.2")], "has two kernels, '6.1.0-1-cloud' and '6.2'"),
        ([KERNEL[0], member("boot/initrd.img-6.2")], "has two kernels"),
        ([*KERNEL, KERNEL[1]], "has two kernels"),
        ([*KERNEL, member("../a")], "a member outside its root"),
        ([*KERNEL, link("a", "dev/null")], "hard link 'a' to 'dev/null'"),
        ([*KERNEL, link("a", "boot/config-1")], "hard link 'a' to 'boot/config-1'"),
        ([*KERNEL, link("usr/lib/firmware/a", "etc/a")], "to 'etc/a', which goes to another"),
    ],
)
def test_a_tree_that_cannot_be_an_image_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        Halves(tmp_path, members)


def test_a_hard_link_to_the_kernel_is_to_its_new_name(tmp_path: Path) -> None:
    members = [*KERNEL, link("boot/kernel", "boot/vmlinuz-6.1.0-1-cloud")]
    found = Halves.read(Halves(tmp_path, members).device)
    assert found["system/boot/kernel"][0].linkname == "assets/vmlinuz"


@pytest.mark.parametrize("size", [0, 700, 5000])
def test_a_tree_that_was_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    cut = io.BytesIO(stream(TREE).getvalue()[:size])
    with pytest.raises(DataError):
        split(
            cut,
            rootfs=tmp_path / "r",
            device=tmp_path / "d",
            bootloader="grub",
            level=1,
        )


DEVICE_TREES = [
    member("./usr/lib/linux-image-6.1.0-1-armmp/", tarfile.DIRTYPE, mode=0o755),
    member("./usr/lib/linux-image-6.1.0-1-armmp/bcm2709-rpi-2-b.dtb", data=b"raspi"),
    member("./usr/lib/linux-image-6.1.0-1-armmp/overlays/uart.dtbo", data=b"overlay"),
    member("./usr/lib/firmware/6.8.0-1-generic/device-tree/ti/board.dtb", data=b"ubuntu"),
    member("./usr/lib/linux-image-tools", data=b"x"),
]


def test_device_trees_are_assets_for_u_boot(tmp_path: Path) -> None:
    found = Halves.read(Halves(tmp_path, [*KERNEL, *DEVICE_TREES], "u-boot").device)
    assert found["assets/dtbs"][0].isdir()
    assert {name: data for name, (_, data) in found.items() if name.startswith("assets/dtbs/")} == {
        "assets/dtbs/bcm2709-rpi-2-b.dtb": b"raspi",
        "assets/dtbs/overlays/uart.dtbo": b"overlay",
        "assets/dtbs/ti/board.dtb": b"ubuntu",
    }
    hardware = Hardware.from_yaml(found["hardware.yaml"][1].decode())
    assert (hardware.bootloader, hardware.dtbs) == ("u-boot", "assets/dtbs")


def test_what_is_added_has_the_time_of_the_kernel(tmp_path: Path) -> None:
    vmlinuz = member("./boot/vmlinuz-6.1.0-1-cloud", data=b"kernel", mtime=1431345600)
    halves = Halves(tmp_path, [vmlinuz, KERNEL[1]])
    assert halves.read(halves.device)["hardware.yaml"][0].mtime == 1431345600


def test_other_boot_loaders_have_no_device_trees_to_load(tmp_path: Path) -> None:
    halves = Halves(tmp_path, [*KERNEL, *DEVICE_TREES])
    found = halves.read(halves.device)
    assert "system/usr/lib/linux-image-6.1.0-1-armmp/bcm2709-rpi-2-b.dtb" in found
    assert Hardware.from_yaml(found["hardware.yaml"][1].decode()).dtbs == ""
    assert set(halves.read(halves.rootfs)) == {"usr/lib/linux-image-tools"}


def test_u_boot_without_device_trees_has_its_own(tmp_path: Path) -> None:
    found = Halves.read(Halves(tmp_path, KERNEL, "u-boot").device)
    assert "dtbs" not in found["hardware.yaml"][1].decode()
