"""Channels: make, remove and rename them, and say which ones follow others.

Every function is one transaction: the channel, and all that follow it, change in one step. It
returns the names of the channels that changed; with `dry_run`, that would change.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.lib.gpg import Signer
from coreimage.model.channels import Channel, Channels, check_channel_name
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.tree import editing, layout
from coreimage.systemimage.tree.followers import followers_of, put_version
from coreimage.systemimage.tree.images import LAST_VERSION, last_version
from coreimage.systemimage.tree.transaction import Edit
from coreimage.systemimage.tree.versionfile import Telling, is_version_file


def create_channel(
    workspace: Workspace,
    name: str,
    *,
    now: datetime,
    hidden: bool = False,
    exist_ok: bool = False,
    dry_run: bool = False,
) -> bool:
    """Publish a channel without devices; the first import of a device adds it.

    Returns whether it is new. Raises DataError for a name that clients cannot digest, and
    CoreImageError when the channel exists, unless `exist_ok`.
    """
    check_channel_name(name)
    purpose = f"channel create {name}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        if name in edit.channels.channels:
            if exist_ok:
                return False
            raise _exists(name)
        edit.set_channel(name, Channel(devices={}, hidden=hidden))
    return True


def remove_channel(
    workspace: Workspace, name: str, *, now: datetime, force: bool = False, dry_run: bool = False
) -> Sequence[str]:
    """Remove a channel and return the channels that were removed or changed.

    Channels that follow it keep it from being removed, unless `force`: then aliases and redirects
    of it are removed with it, and single devices that are redirected to it.
    """
    purpose = f"channel remove {name}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        edit.channels.require(name)
        _remove(edit, name, force=force)
    return edit.changed()


def _remove(edit: Edit, name: str, *, force: bool) -> None:
    followers = followers_of(edit.channels, name)
    if followers and not force:
        raise _followed(name, followers, "--force removes them, too")
    for follower in followers:
        channel = edit.channels.channels[follower]
        if channel.follows == name:
            _remove(edit, follower, force=force)
            continue
        for device, entry in channel.devices.items():
            if entry.redirect == name:
                edit.remove_device(follower, device)
    edit.remove_channel(name)


def rename_channel(
    workspace: Workspace,
    old: str,
    new: str,
    *,
    now: datetime,
    force: bool = False,
    keep_redirect: bool = False,
    dry_run: bool = False,
) -> Sequence[str]:
    """Give a channel another name, with indexes and version tarballs that say so.

    Devices look for the old name: `keep_redirect` leaves a hidden redirect there, by which they
    move to the new one. Channels that follow it keep it from being renamed, unless `force`: then
    they follow the new name, which makes devices of its aliases take a full image.
    """
    check_channel_name(new)
    purpose = f"channel rename {old} {new}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        channel = edit.channels.require(old)
        if new in edit.channels.channels:
            raise _exists(new)
        followers = followers_of(edit.channels, old)
        if followers and not force:
            raise _followed(old, followers, "--force makes them follow the new name")
        if channel.follows is None:
            edit.set_channel(new, replace(channel, devices={}))
            for device, entry in channel.devices.items():
                _take_over(edit, old, new, device, entry.redirect)
        else:
            edit.set_channel(new, replace(channel, devices={}))
        edit.remove_channel(old)
        for follower in followers:
            edit.set_channel(follower, _retargeted(edit.channels.channels[follower], old, new))
        if keep_redirect:
            edit.set_channel(old, Channel(devices={}, redirect=new, hidden=True))
    return edit.changed()


def _take_over(edit: Edit, old: str, new: str, device: str, redirect: str | None) -> None:
    """Give a channel the device of another one, under its own name."""
    entry = edit.channels.device(old, device)
    if redirect is not None:
        found = edit.channels.channels[new]
        edit.set_channel(new, replace(found, devices={**found.devices, device: entry}))
        return
    index, start = edit.index(old, device), edit.index(new, device)
    level = layout.payload_level(entry)
    images = []
    for image in index.images:
        telling = Telling(
            channel=new,
            device=device,
            version=image.version,
            version_detail=image.version_detail,
        )
        files = [
            put_version(edit, file, telling, level=level) if is_version_file(file) else file
            for file in image.files
        ]
        images.append(replace(image, files=files))
    last = max(last_version(index), last_version(start))
    kept = {key: value for key, value in index.extra.items() if key not in ("target", "downgrade")}
    edit.write_index(
        new, device, replace(index, images=images, extra={**kept, LAST_VERSION: last}), entry
    )


def _retargeted(channel: Channel, old: str, new: str) -> Channel:
    return replace(
        channel,
        alias=new if channel.alias == old else channel.alias,
        redirect=new if channel.redirect == old else channel.redirect,
        devices={
            name: replace(device, redirect=new) if device.redirect == old else device
            for name, device in channel.devices.items()
        },
    )


def set_hidden(
    workspace: Workspace, name: str, *, hidden: bool, now: datetime, dry_run: bool = False
) -> Sequence[str]:
    """Hide a channel from people, or show it again."""
    purpose = f"channel hide {name}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        found = edit.channels.require(name)
        edit.set_channel(name, replace(found, hidden=hidden))
    return edit.changed()


def set_alias(
    workspace: Workspace,
    name: str,
    target: str,
    *,
    now: datetime,
    force: bool = False,
    allow_downgrade: bool = False,
    dry_run: bool = False,
) -> Sequence[str]:
    """Make a channel follow another one with all its devices and images; it may be new.

    An alias may be changed to another target; the channel is there all the time. `force` lets a
    channel with images of its own become one, and lets one lose devices that the target lacks.
    `allow_downgrade` lets its devices go back to lower numbers.
    """
    check_channel_name(name)
    purpose = f"channel alias {name} {target}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        found = _prepare_to_follow(edit, name, target, force=force, own_kept=True)
        if allow_downgrade:
            edit.allow_downgrade(name)
        edit.set_channel(name, replace(found, alias=target, redirect=None))
    return edit.changed()


def unset_alias(
    workspace: Workspace, name: str, *, now: datetime, dry_run: bool = False
) -> Sequence[str]:
    """Let an alias keep the images that it has, as its own, and follow nobody any more."""
    purpose = f"channel unalias {name}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        found = edit.channels.require(name)
        if found.alias is None:
            raise CoreImageError(f"channel '{name}' is not an alias", hint=_follows(found))
        edit.set_channel(name, replace(found, alias=None))
        for device in found.devices:
            _take_over(edit, name, name, device, None)
    return edit.changed()


def set_redirect(
    workspace: Workspace,
    name: str,
    target: str,
    *,
    now: datetime,
    device: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Sequence[str]:
    """Send the devices of a channel, or one of them, to another channel's images.

    The channel may be new. `force` gives up the images that it has of its own.
    """
    check_channel_name(name)
    purpose = f"channel redirect {name} {target}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        if device is not None:
            _redirect_device(edit, name, target, device, force=force)
        else:
            found = _prepare_to_follow(edit, name, target, force=force, own_kept=False)
            edit.set_channel(name, replace(found, alias=None, redirect=target))
    return edit.changed()


def _redirect_device(edit: Edit, name: str, target: str, device: str, *, force: bool) -> None:
    found = edit.channels.channels.get(name, Channel(devices={}))
    if found.follows is not None:
        raise CoreImageError(
            f"channel '{name}' follows '{found.follows}' with all its devices",
            hint="redirect a device of a channel of its own",
        )
    own = found.devices.get(device)
    if own is not None and own.redirect is None and not force:
        raise CoreImageError(
            f"'{device}' has images of its own in channel '{name}'",
            hint="--force gives them up; their numbers are not used again",
        )
    entry = replace(edit.channels.device(target, device), redirect=target)
    edit.set_channel(name, found)
    if own is not None:
        edit.remove_device(name, device)
    found = edit.channels.channels[name]
    edit.set_channel(name, replace(found, devices={**found.devices, device: entry}))


def unset_redirect(
    workspace: Workspace,
    name: str,
    *,
    now: datetime,
    device: str | None = None,
    dry_run: bool = False,
) -> Sequence[str]:
    """End the redirect of a channel, or of one device; it has no images then until an import."""
    purpose = f"channel unredirect {name}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        found = edit.channels.require(name)
        if device is not None:
            if found.redirect or edit.channels.device(name, device).redirect is None:
                raise CoreImageError(
                    f"'{device}' of channel '{name}' is not redirected by itself",
                    hint=_follows(found),
                )
            edit.remove_device(name, device)
        elif found.redirect is None:
            raise CoreImageError(f"channel '{name}' is not redirected", hint=_follows(found))
        else:
            edit.set_channel(name, replace(found, redirect=None, devices={}))
    return edit.changed()


def set_device_keyring(
    workspace: Workspace,
    name: str,
    device: str,
    *,
    now: datetime,
    remove: bool = False,
    dry_run: bool = False,
) -> Sequence[str]:
    """Let a device's index be signed by the device-signing key, whose keyring it then fetches.

    `remove` takes the keyring away. The key must be there: NotFoundError.
    """
    purpose = f"channel keyring {name} {device}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        entry = edit.channels.device(name, device)
        edit.require_own(name, device)
        if remove and entry.keyring is None:
            return []
        tarball = None
        if not remove:
            level = KeyringType.DEVICE_SIGNING
            keys = Signer(workspace.gpg_home).public_keyring(level).read_bytes()
            tarball = keyrings.keyring_tarball(level, keys, now=now, model=device)
        edit.put_device_keyring(name, device, tarball)
    return edit.changed()


def refresh(
    workspace: Workspace, *, now: datetime, force: bool = False, dry_run: bool = False
) -> bool:
    """Publish the channels with a new expiry when less than half the time is left.

    Returns whether that was so. `force` does it in any case.
    """
    purpose = "channel refresh"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        due = force or _is_due(workspace, edit.channels, now)
        if due:
            edit.refresh()
    return due


def _is_due(workspace: Workspace, channels: Channels, now: datetime) -> bool:
    if not channels.channels:
        return False
    half = timedelta(days=workspace.settings.tree.expiry_days) / 2
    return channels.expires is None or channels.expires - now.timestamp() < half.total_seconds()


def _prepare_to_follow(
    edit: Edit, name: str, target: str, *, force: bool, own_kept: bool
) -> Channel:
    """Return the channel, new or old, that is to follow another one; own devices are given up.

    With `own_kept` the devices stay in it, for an alias to go on from them.
    """
    if name == target:
        raise CoreImageError(f"channel '{name}' cannot follow itself", hint="name another target")
    goal = edit.channels.require(target)
    found = edit.channels.channels.get(name)
    if found is None:
        return Channel(devices={})
    if found.redirect is not None:
        return replace(found, devices={})
    lost = sorted(set(found.devices) - set(goal.devices))
    if found.alias is None and found.devices and not force:
        raise CoreImageError(
            f"channel '{name}' has images of its own",
            hint=f"--force gives them up for those of '{target}'; numbers are not used again",
        )
    if lost and not force:
        raise NotFoundError(
            f"channel '{target}' has no device " + ", ".join(f"'{device}'" for device in lost),
            hint=f"--force lets '{name}' lose what '{target}' lacks",
        )
    if own_kept:
        return found
    for device in found.devices:
        edit.remove_device(name, device)
    return edit.channels.channels[name]


def _exists(name: str) -> CoreImageError:
    return CoreImageError(
        f"channel '{name}' exists already",
        hint=f"look at it with 'coreimage channel show {name}'",
    )


def _followed(name: str, followers: Sequence[str], offer: str) -> CoreImageError:
    return CoreImageError(
        f"channel '{name}' is followed by " + ", ".join(f"'{each}'" for each in followers),
        hint=f"change or remove these first; {offer}",
    )


def _follows(channel: Channel) -> str:
    if channel.follows is None:
        return "it follows no other channel"
    kind = "an alias of" if channel.alias else "redirected to"
    return f"it is {kind} '{channel.follows}'"
