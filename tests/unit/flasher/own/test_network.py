from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.flasher.own.netplan import parse_netplan
from coreimage.flasher.own.network import check_network, read_network

GOOD = "# lab\n[Match]\nName=en*\n\n[Network]\nAddress=192.0.2.7/24\nGateway=192.0.2.1\n"
NETPLAN = b"""
network:
  version: 2
  ethernets:
    lan0:
      match: {macaddress: "52:54:00:12:34:56"}
      addresses: [192.0.2.7/24, "2001:db8::7/64"]
      dhcp6: true
      mtu: 9000
      optional: true
      nameservers: {addresses: [192.0.2.53], search: [lab.example]}
      routes:
        - {to: default, via: 192.0.2.1, metric: 50}
        - {to: 198.51.100.0/24, via: 192.0.2.2}
"""


def test_a_file_of_networkd_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "10-lab.network"
    path.write_text(GOOD)
    (found,) = read_network(path)
    assert (found.name, found.text) == ("10-lab.network", GOOD)


def test_netplan_becomes_a_file_of_networkd(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(NETPLAN)
    (found,) = read_network(path)
    assert found.name == "10-netplan-lan0.network"
    assert found.text == (
        "[Match]\nMACAddress=52:54:00:12:34:56\n\n"
        "[Link]\nRequiredForOnline=no\nMTUBytes=9000\n\n"
        "[Network]\nDHCP=ipv6\nAddress=192.0.2.7/24\nAddress=2001:db8::7/64\n"
        "DNS=192.0.2.53\nDomains=lab.example\n\n"
        "[Route]\nGateway=192.0.2.1\nMetric=50\n\n"
        "[Route]\nGateway=192.0.2.2\nDestination=198.51.100.0/24\n"
    )
    check_network(found.text, source=found.name)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        (GOOD.replace("[Match]", "[Mach]"), "x.network:2", "Match"),
        (GOOD.replace("Gateway", "Gatway"), "x.network:7: 'Gatway'", "'Gateway'"),
        (GOOD.replace("Gateway=", "Gateway "), "x.network:7", "NAME=VALUE"),
        ("Name=en*\n", "x.network:1", "section"),
        ("[Network]\nDHCP=yes\n", "which interfaces", "[Match]"),
        ("", "which interfaces", "[Match]"),
    ],
)
def test_a_slip_is_found_by_its_line(text: str, says: str, hint: str) -> None:
    with pytest.raises(DataError) as raised:
        check_network(text, source="x.network")
    assert says in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b"dhcp6", b"dhpc6"), "network.ethernets.lan0.dhpc6"),
        ((b"version: 2", b"version: 1"), "network.version"),
        ((b"ethernets", b"wifis"), "network.wifis"),
        ((b"192.0.2.7/24,", b"192.0.2.7,"), "/24"),
        ((b"192.0.2.7/24,", b"192.0.2.700/24,"), "addresses"),
        ((b"lan0", b"'../lan0'"), "no name of an interface"),
        ((b"lab.example", b'"a\\nb"'), "no name"),
        ((b"network:", b"network: ["), "not YAML"),
    ],
)
def test_netplan_that_we_cannot_make_is_refused(change: tuple[bytes, bytes], says: str) -> None:
    text = NETPLAN.replace(*change, 1)
    assert text != NETPLAN
    with pytest.raises(DataError, match=says):
        parse_netplan(text, source="lab.yaml")


def test_other_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "interfaces"
    path.write_text(GOOD)
    with pytest.raises(DataError) as raised:
        read_network(path)
    assert "NAME.network" in raised.value.hint
