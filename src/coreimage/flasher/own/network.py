"""Networks of one machine: files of systemd-networkd, checked, and netplan's made into such files.

What is wrong in a network file is found out when nobody can reach the machine any more: so files
are checked when the disk is made. Source: systemd.network(5).
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.flasher.own.netplan import parse_netplan
from coreimage.lib.fetch import open_regular

_MAX_FILE = 256 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,100}\Z")
_ASSIGNMENT = re.compile(r"([A-Za-z0-9-]+)\s*=(.*)\Z")
_SECTION_NAMES = """
Match Link SR-IOV Network Address Neighbor IPv6AddressLabel RoutingPolicyRule NextHop Route
DHCPv4 DHCPv6 DHCPPrefixDelegation IPv6AcceptRA DHCPServer DHCPServerStaticLease IPv6SendRA
IPv6Prefix IPv6RoutePrefix IPv6PREF64Prefix Bridge BridgeFDB BridgeMDB BridgeVLAN LLDP CAN
IPoIB QDisc NetworkEmulator TokenBucketFilter PIE FlowQueuePIE StochasticFairBlue
StochasticFairnessQueueing BFIFO PFIFO PFIFOHeadDrop PFIFOFast CAKE ControlledDelay
DeficitRoundRobinScheduler DeficitRoundRobinSchedulerClass EnhancedTransmissionSelection
GenericRandomEarlyDetection FairQueueingControlledDelay FairQueueing TrivialLinkEqualizer
HierarchyTokenBucket HierarchyTokenBucketClass ClassfulMultiQueueing BandMultiQueueing
HeavyHitterFilter QuickFairQueueing QuickFairQueueingClass
"""
_MATCH_KEYS = """
Architecture BSSID Credential Driver Firmware Host KernelCommandLine KernelVersion Kind
MACAddress Name Path PermanentMACAddress Property SSID Type Virtualization WLANInterfaceType
"""
_NETWORK_KEYS = """
Address BatmanAdvanced BindCarrier Bond Bridge ConfigureWithoutCarrier DHCP
DHCPPrefixDelegation DHCPServer DNS DNSDefaultRoute DNSOverTLS DNSSEC
DNSSECNegativeTrustAnchors DefaultRouteOnDevice Description Domains EmitLLDP Gateway IPForward
IPMasquerade IPVLAN IPVTAP IPoIB IPv4AcceptLocal IPv4Forwarding IPv4LL IPv4LLRoute
IPv4LLStartAddress IPv4ProxyARP IPv4ReversePathFilter IPv4RouteLocalnet IPv6AcceptRA
IPv6DuplicateAddressDetection IPv6Forwarding IPv6HopLimit IPv6LinkLocalAddressGenerationMode
IPv6MTUBytes IPv6PrivacyExtensions IPv6ProxyNDP IPv6ProxyNDPAddress IPv6RetransmissionTimeSec
IPv6SendRA IPv6StableSecretAddress IPv6Token IgnoreCarrierLoss KeepConfiguration KeepMaster
L2TP LLDP LLMNR LinkLocalAddressing MACVLAN MACVTAP MACsec MPLSRouting ManageForeignRoutes
ManageForeignRoutingPolicyRules MulticastDNS NFTSet NTP ProxyARP RouteTable SpeedMeter
SpeedMeterIntervalSec Tunnel UseDomains VLAN VRF VXLAN Xfrm
"""
_SECTIONS = _SECTION_NAMES.split()
_KEYS = {"Match": _MATCH_KEYS.split(), "Network": _NETWORK_KEYS.split()}
# As near to a known key as this, another one is a slip of the pen; farther, it may be a new one.
_SLIP = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFile:
    """A file of systemd-networkd: its name, which decides its order, and its text."""

    name: str
    text: str


def read_network(path: Path) -> list[NetworkFile]:
    """Read a .network file, or a netplan file (.yaml); raises DataError that names the line."""
    with open_regular(path) as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise DataError(f"'{path}' is too large for a network file")
    if path.suffix in {".yaml", ".yml"}:
        made = parse_netplan(content, source=str(path))
        return [NetworkFile(name=name, text=text) for name, text in made.items()]
    if path.suffix != ".network" or not _NAME.match(path.name):
        raise DataError(
            f"'{path}' has not the name of a network file",
            hint="give a file of systemd-networkd, NAME.network, or one of netplan, NAME.yaml",
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not text: {error}") from error
    check_network(text, source=str(path))
    return [NetworkFile(name=path.name, text=text)]


def check_network(text: str, *, source: str) -> None:
    """Raise DataError for the first line of a .network file that cannot be meant."""
    section, matches = "", False
    for number, raw in enumerate(text.splitlines(), 1):
        line, where = raw.strip(), f"{source}:{number}"
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section = _section(line, where)
            continue
        matches |= section == "Match"
        _check_assignment(line, section, where)
    if not matches:
        raise DataError(
            f"{source}: nothing says which interfaces it is for",
            hint="begin with a section [Match] with Name=, MACAddress= or Type=",
        )


def _section(line: str, where: str) -> str:
    name = line.removeprefix("[").removesuffix("]")
    if not line.endswith("]") or name not in _SECTIONS:
        raise DataError(f"{where}: '{line}' is no section of it", hint=_nearest(name, _SECTIONS))
    return name


def _check_assignment(line: str, section: str, where: str) -> None:
    match = _ASSIGNMENT.match(line)
    if match is None or not section:
        raise DataError(f"{where}: '{line}' is no setting", hint="expected NAME=VALUE in a section")
    known = _KEYS.get(section, ())
    if known and match[1] not in known:
        hint = _nearest(match[1], known)
        if hint:
            raise DataError(f"{where}: '{match[1]}' is not a key of [{section}]", hint=hint)


def _nearest(word: str, known: Sequence[str]) -> str:
    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=_SLIP)
    return f"did you mean '{lower[found[0]]}'?" if found else ""
