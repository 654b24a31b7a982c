# SPDX-License-Identifier: GPL-2.0
"""Frames to feed to the receive path, and where in them the flow is."""

import ipaddress
import struct
from dataclasses import dataclass

ETHERNET = 14
TCP_FIN, TCP_SYN, TCP_RST, TCP_ACK = 1, 2, 4, 16

# Clients: a flow is a client, whose address is the first and its number.
CLIENT = "172.16.0.1"
CLIENTS = "172.16.0.0/12"
CLIENT6 = "fd01::1"
CLIENTS6 = "fd01::/64"
CLIENT_PORT = 40000
ROUTER = "192.0.2.1"


@dataclass(frozen=True)
class Packet:
    """A frame; the offset of the word that the number of a flow is added to; and of
    the checksum of the IPv4 header that has that word, 0 if none has."""

    frame: bytes
    vary: int
    checksum: int


def _checksum(data):
    words = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(proto, src, dst, payload):
    def header(checksum):
        return struct.pack(
            "!BBHHHBBH4s4s",
            0x45, 0, 20 + len(payload), 0, 0x4000, 64, proto, checksum,
            ipaddress.ip_address(src).packed,
            ipaddress.ip_address(dst).packed,
        )

    return header(_checksum(header(0))) + payload


def _ipv6(proto, src, dst, payload):
    return (
        struct.pack("!IHBB", 0x60000000, len(payload), proto, 64)
        + ipaddress.ip_address(src).packed
        + ipaddress.ip_address(dst).packed
        + payload
    )


def _tcp(sport, dport, flags):
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 65535, 0, 0)


def _udp(sport, dport):
    return struct.pack("!HHHH", sport, dport, 8 + 18, 0) + bytes(18)


def _ethernet(mac, kind, payload):
    return mac + bytes.fromhex("020000000001") + struct.pack("!H", kind) + payload


class Frames:
    """Makes frames for the device with the address `mac`."""

    def __init__(self, mac):
        self._mac = mac

    def _v4(self, proto, dst, payload):
        frame = _ethernet(self._mac, 0x0800, _ipv4(proto, CLIENT, dst, payload))
        return Packet(frame, ETHERNET + 12, ETHERNET + 10)

    def _v6(self, proto, dst, payload):
        frame = _ethernet(self._mac, 0x86DD, _ipv6(proto, CLIENT6, dst, payload))
        return Packet(frame, ETHERNET + 8 + 12, 0)

    def _ip(self, proto, dst, payload):
        version = ipaddress.ip_address(dst).version
        return (self._v4 if version == 4 else self._v6)(proto, dst, payload)

    def syn(self, dst, port=80):
        """A segment that begins a connection."""
        return self._ip(6, dst, _tcp(CLIENT_PORT, port, TCP_SYN))

    def ack(self, dst, port=80):
        """A segment of a connection."""
        return self._ip(6, dst, _tcp(CLIENT_PORT, port, TCP_ACK))

    def fin(self, dst, port=80):
        """The client's last segment of a connection."""
        return self._ip(6, dst, _tcp(CLIENT_PORT, port, TCP_FIN | TCP_ACK))

    def rst(self, dst, port=80):
        """A segment that ends a connection."""
        return self._ip(6, dst, _tcp(CLIENT_PORT, port, TCP_RST))

    def udp(self, dst, port=80):
        """A datagram, as long as the shortest Ethernet frame can have it."""
        return self._ip(17, dst, _udp(CLIENT_PORT, port))

    def too_big(self, dst, port=80):
        """A router's complaint about a packet from `dst` to a client."""
        inner = _ipv4(6, dst, CLIENT, _tcp(port, CLIENT_PORT, TCP_ACK)[:8])
        body = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + inner
        checksum = _checksum(body)
        body = struct.pack("!BBHHH", 3, 4, checksum, 0, 1400) + inner
        frame = _ethernet(self._mac, 0x0800, _ipv4(1, ROUTER, dst, body))
        embedded = ETHERNET + 20 + 8
        return Packet(frame, embedded + 16, embedded + 10)
