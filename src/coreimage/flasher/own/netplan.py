"""netplan files: those for Ethernet, made into files of systemd-networkd.

So the image needs no netplan. Source of the format: netplan's own reference, version 2. What is
not made into anything (Wi-Fi, bridges, bonds) is refused, never left out in silence.
"""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from coreimage.flasher.packageyaml import Strict, parse_yaml

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}\Z")
_WORD = re.compile(r"[A-Za-z0-9*?!._:@-]{1,100}\Z")


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise ValueError(f"'{text}' is no name")
    return text


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _interface(text: str) -> str:
    if "/" not in text:
        raise ValueError(f"'{text}' has no length of its network, such as /24")
    ipaddress.ip_interface(text)
    return text


def _target(text: str) -> str:
    if text != "default":
        ipaddress.ip_network(text)
    return text


def _identifier(text: str) -> str:
    if not _ID.match(text):
        raise ValueError(f"'{text}' is no name of an interface")
    return text


Word = Annotated[str, AfterValidator(_word)]
Address = Annotated[str, AfterValidator(_address)]
Identifier = Annotated[str, AfterValidator(_identifier)]


class Match(Strict):
    """Which interfaces are meant."""

    name: Word = ""
    macaddress: Word = ""
    driver: Word = ""


class Nameservers(Strict):
    """Who answers for names."""

    addresses: tuple[Address, ...] = Field(default=(), strict=False)
    search: tuple[Word, ...] = Field(default=(), strict=False)


class Route(Strict):
    """A way to a network."""

    to: Annotated[str, AfterValidator(_target)]
    via: Address
    metric: int | None = None


class Ethernet(Strict):
    """One interface, or all that match."""

    match: Match | None = None
    dhcp4: bool = False
    dhcp6: bool = False
    addresses: tuple[Annotated[str, AfterValidator(_interface)], ...] = Field(
        default=(), strict=False
    )
    gateway4: Address = ""
    gateway6: Address = ""
    nameservers: Nameservers = Nameservers()
    routes: tuple[Route, ...] = Field(default=(), strict=False)
    mtu: int | None = None
    optional: bool = False


class Network(Strict):
    """The table `network`."""

    version: Literal[2]
    renderer: Literal["networkd"] = "networkd"
    ethernets: dict[Identifier, Ethernet]


class Document(Strict):
    """The whole file."""

    network: Network


def parse_netplan(text: bytes, *, source: str) -> dict[str, str]:
    """Return .network files by name; raises DataError that names the key."""
    network = parse_yaml(Document, text, source=source).network
    return {
        f"10-netplan-{name}.network": _network(name, ethernet)
        for name, ethernet in network.ethernets.items()
    }


def _network(name: str, each: Ethernet) -> str:
    match = each.match or Match(name=name)
    lines = ["[Match]"]
    lines += [
        f"{key}={value}"
        for key, value in (
            ("Name", match.name),
            ("MACAddress", match.macaddress),
            ("Driver", match.driver),
        )
        if value
    ]
    lines += ["", "[Link]", f"RequiredForOnline={'no' if each.optional else 'yes'}"]
    lines += [f"MTUBytes={each.mtu}"] if each.mtu is not None else []
    dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6"}
    lines += ["", "[Network]", f"DHCP={dhcp.get((each.dhcp4, each.dhcp6), 'no')}"]
    lines += [f"Address={address}" for address in each.addresses]
    lines += [f"Gateway={gateway}" for gateway in (each.gateway4, each.gateway6) if gateway]
    lines += [f"DNS={address}" for address in each.nameservers.addresses]
    lines += [f"Domains={' '.join(each.nameservers.search)}"] if each.nameservers.search else []
    for route in each.routes:
        lines += ["", "[Route]", f"Gateway={route.via}"]
        lines += [f"Destination={route.to}"] if route.to != "default" else []
        lines += [f"Metric={route.metric}"] if route.metric is not None else []
    return "\n".join(lines) + "\n"
