"""Which addresses a URL from outside may lead to: public ones, and those of networks that were allowed by name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TypeAlias

from tidegate.errors import SettingsError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA's registries of special-purpose addresses (RFC 6890), and multicast. Ours, since what `is_global` says differs
# between patch releases of Python 3.11 and 3.12 (gh-113171).
_REFUSED_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out; what lies outside is loopback, mapped, translated, local or reserved."""

_REFUSED_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # Teredo, ORCHID and other protocols
            "2001:db8::/32",
            "2002::/16",  # 6to4, which holds an IPv4 address
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Read networks as 10.1.0.0/16, or single addresses.

    Raises:
        SettingsError: one is none.
    """
    try:
        return tuple(ipaddress.ip_network(name) for name in names)
    except ValueError as error:
        raise SettingsError(f"serve.allow_networks: {error}; write networks as 10.1.0.0/16") from None


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Say whether an address lies in one of these networks; one of IPv4 inside of IPv6 (::ffff:0:0/96) counts as IPv4.

    An address with a zone (fe80::1%eth0) lies in none.
    """
    address = _unmapped(address)
    return getattr(address, "scope_id", None) is None and any(
        address in network for network in allowed if network.version == address.version
    )


def is_public(address: Address) -> bool:
    """Say whether an address is one of the whole internet's, by the registries of IANA."""
    address = _unmapped(address)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_4)
    if address.scope_id is not None or address not in _PUBLIC_6:
        return False
    return not any(address in network for network in _REFUSED_6)


def is_disguised(host: str) -> bool:
    """Say whether a host is an IPv4 address in another form than four decimal numbers.

    Resolvers take 2130706433, 0x7f.1 and 0177.0.0.1 for 127.0.0.1. By the URL standard of WHATWG, a host whose last
    label is a number is an address.
    """
    labels = host.rstrip(".").split(".")
    if _NUMBER.fullmatch(labels[-1]) is None:
        return False
    try:
        ipaddress.IPv4Address(host.rstrip("."))
    except ValueError:
        return True
    return host.endswith(".")


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
