"""Channels that follow others: aliases and redirects, brought along in the same transaction.

An alias has indexes and version tarballs of its own, with the images of the channel it follows
and under their numbers. A redirect has a copy of the other channel's entries.
Source: wiki.ubuntu.com/ImageBasedUpgrades/Server, and what old clients make of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from coreimage.errors import CoreImageError, DataError
from coreimage.model.channels import Channel, Channels
from coreimage.model.index import Image, ImageFile, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.tree import layout, versionfile
from coreimage.systemimage.tree.images import LAST_VERSION, last_version
from coreimage.systemimage.tree.transaction import Edit
from coreimage.systemimage.tree.versionfile import Telling

# In an alias' entry of a version tarball: the digest of the one that it was made from.
_SOURCE = "source_checksum"
# In an alias' index: the channel that it follows.
_TARGET = "target"
_DOWNGRADE = "downgrade"


def bring_along(edit: Edit) -> None:
    """Make every channel follow what it is set to follow, those first that others follow.

    Raises NotFoundError when it is not there, and CoreImageError when channels follow each other
    in a circle or an alias would go back to lower numbers without being allowed to.
    """
    for name in _in_order(edit.channels):
        channel = edit.channels.channels[name]
        if channel.alias is not None and channel.alias != name:
            _follow_alias(edit, name, channel.alias)
        elif channel.redirect is not None:
            target = edit.channels.require(channel.redirect)
            edit.set_channel(name, replace(channel, devices=target.devices))
        else:
            _follow_redirects(edit, name, channel)


def followers_of(channels: Channels, target: str) -> list[str]:
    """Return the channels that follow another one, whole or for some devices, by name."""
    return sorted(
        name
        for name, channel in channels.channels.items()
        if name != target and target in _targets(channel)
    )


def _targets(channel: Channel) -> set[str]:
    names = {channel.follows, *(device.redirect for device in channel.devices.values())}
    return {name for name in names if name is not None}


def _in_order(channels: Channels) -> Sequence[str]:
    """Return all channels, each after those that it follows."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise CoreImageError(
                "channels follow each other in a circle: " + " -> ".join([*path, name]),
                hint="let one of them follow a channel that has images of its own",
            )
        if name in order:
            return
        for target in sorted(_targets(channels.require(name)) - {name}):
            visit(target, (*path, name))
        order.append(name)

    for name in sorted(channels.channels):
        visit(name, ())
    return order


def _follow_redirects(edit: Edit, name: str, channel: Channel) -> None:
    devices = {
        device: entry
        if entry.redirect is None
        else replace(edit.channels.device(entry.redirect, device), redirect=entry.redirect)
        for device, entry in channel.devices.items()
    }
    if devices != channel.devices:
        edit.set_channel(name, replace(channel, devices=devices))


def _follow_alias(edit: Edit, name: str, target: str) -> None:
    found = edit.channels.require(target)
    for device in edit.channels.channels[name].devices:
        if device not in found.devices:
            edit.remove_device(name, device)
    for device, entry in found.devices.items():
        if _has_moved(edit, name, target, device):
            index = _alias_index(edit, name, target, device)
            edit.write_index(name, device, index, replace(entry, redirect=None))


def _has_moved(edit: Edit, name: str, target: str, device: str) -> bool:
    """Tell whether the device's index of an alias is to be made anew."""
    before, now = edit.before.channels, edit.channels.channels
    if device not in now[name].devices:
        return True
    old = before[target].devices.get(device) if target in before else None
    aliased = name in before and before[name].alias == target and device in before[name].devices
    return not aliased or old != now[target].devices[device]


def _alias_index(edit: Edit, name: str, target: str, device: str) -> Index:
    source, own = edit.index(target, device), edit.index(name, device)
    writer = _VersionFiles(edit, name, target, device, own)
    images = [
        replace(image, files=[writer.own_file(image, file) for file in image.files])
        for image in source.images
    ]
    highest = max((image.version for image in images), default=0)
    remembered = max(last_version(own), last_version(source))
    extra = {key: value for key, value in own.extra.items() if key != _DOWNGRADE}
    if _goes_back(edit, name, own, highest):
        extra[_DOWNGRADE] = True
    return replace(own, images=images, extra={**extra, LAST_VERSION: remembered, _TARGET: target})


def _goes_back(edit: Edit, name: str, own: Index, highest: int) -> bool:
    """Tell whether devices may have higher numbers than the alias now offers.

    That is decided when an alias is made or changed, and stays so until the numbers have caught
    up. Raises CoreImageError when it was not allowed.
    """
    if highest >= last_version(own):
        return False
    known = own.extra.get(_DOWNGRADE) is True
    before = edit.before.channels.get(name)
    if before is not None and before.alias == edit.channels.channels[name].alias:
        return known
    visible = max((image.version for image in own.images), default=0)
    if not edit.may_downgrade(name) and (highest < visible or not known):
        raise CoreImageError(
            f"'{name}' has offered image {last_version(own)}, and its new target has {highest}",
            hint="devices refuse to go back to lower numbers unless you say --allow-downgrade",
        )
    return True


class _VersionFiles:
    """The version tarballs of an alias, made once for each of its target's.

    Those that name an earlier target are not used again, even if they were made from the same one,
    as they are when both targets have the device from a third channel.
    """

    def __init__(self, edit: Edit, name: str, target: str, device: str, own: Index) -> None:
        self._edit = edit
        self._name = name
        self._target = target
        self._device = device
        self._level = layout.payload_level(edit.channels.device(target, device))
        self._made = {
            str(file.extra[_SOURCE]): file
            for image in own.images
            for file in image.files
            if _SOURCE in file.extra and own.extra.get(_TARGET) == target
        }

    def own_file(self, image: Image, file: ImageFile) -> ImageFile:
        """Return the alias' file for one of its target's: the same, but for the version tarball."""
        if not versionfile.is_version_file(file):
            return file
        if file.checksum not in self._made:
            telling = Telling(
                channel=self._name,
                device=self._device,
                version=image.version,
                version_detail=image.version_detail,
                target=self._target,
            )
            made = put_version(self._edit, file, telling, level=self._level)
            self._made[file.checksum] = replace(made, extra={_SOURCE: file.checksum})
        return replace(self._made[file.checksum], order=file.order)


def put_version(
    edit: Edit, source: ImageFile, telling: Telling, *, level: KeyringType
) -> ImageFile:
    """Publish a version tarball made from another one and return its entry.

    Raises DataError when the other one is not what its index says.
    """
    old = edit.where(source.path).read_bytes()
    if hashlib.sha256(old).hexdigest() != source.checksum:
        raise DataError(f"'{source.path}' is damaged: it is not what its index says")
    content = versionfile.retell(old, telling, name=source.path)
    wanted = f"/{telling.channel}/{telling.device}/version-{telling.version}.tar.xz"
    path = edit.free_path(wanted, content)
    edit.put_signed(path, content, level=level)
    return ImageFile(
        order=source.order,
        path=path,
        checksum=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
