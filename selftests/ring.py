# SPDX-License-Identifier: GPL-2.0
"""Packets by the thousand: rings that are shared with the kernel (packet(7), PACKET_TX_RING).

Nearly all of the work is the network's then. What is sent leaves by eth0.
"""

import mmap
import socket
import struct

SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS = 5, 6
PACKET_VERSION, PACKET_TX_RING, PACKET_LOSS, PACKET_VNET_HDR = 10, 13, 14, 15
ETH_P_IP = 0x0800
TPACKET_V2 = 1
BLOCK = 1 << 16


def checksum(data):
    """What is in the headers of IPv4 and, with a pseudo-header before it, of TCP and UDP."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Ring:
    """`frames` frames of up to `size` bytes each, of which HEADER are not the packet's.

    With `vnet` each packet has a struct virtio_net_hdr in front, and one that the kernel or the
    device does not take is left out, and counted in `refused`.
    """

    HEADER = 32

    def __init__(self, frames, size, vnet=False):
        self.frames, self.size, self.vnet = frames, size, vnet
        self.refused = 0
        # For append(): the frame that the kernel looks at next, and how many are there for it.
        self.next = self.filled = 0
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        # No protocol: nothing is received, and each packet has the one that its header says.
        self.sock.bind(("eth0", 0))
        options = {PACKET_VERSION: TPACKET_V2}
        if vnet:
            options |= {PACKET_VNET_HDR: 1, PACKET_LOSS: 1}
        for option, value in options.items():
            self.sock.setsockopt(SOL_PACKET, option, value)
        ring = struct.pack("IIII", BLOCK, frames * size // BLOCK, size, frames)
        self.sock.setsockopt(SOL_PACKET, PACKET_TX_RING, ring)
        self.view = memoryview(mmap.mmap(self.sock.fileno(), frames * size))

    def put(self, frame, packet):
        """Writes the packet of a frame."""
        start = frame * self.size
        struct.pack_into("II", self.view, start + 4, len(packet), len(packet))
        start += self.HEADER
        self.view[start : start + len(packet)] = packet

    def append(self, packet):
        """Adds a packet to those that flush() sends. Not to be used beside send()."""
        if self.filled == self.frames:
            self.flush()
        self.put(self.next, packet)
        self.view[self.next * self.size] = 1
        self.next = (self.next + 1) % self.frames
        self.filled += 1

    def flush(self):
        """Returns when all of them are gone."""
        if self.filled:
            self.sock.send(b"")
            self.filled = 0

    def column(self, at):
        """The byte of each packet at some offset."""
        return self.view[self.HEADER + at :: self.size]

    def send(self, count=None):
        """Sends the first `count` packets, or all, and returns when they are gone."""
        count = self.frames if count is None else count
        status = self.view[0 : count * self.size : self.size]
        status[:] = b"\1" * count
        while True:
            try:
                self.sock.send(b"")
                return
            except OSError:
                left = status.tobytes().find(1)
                if not self.vnet or left < 0:
                    raise
                # The device dropped it, but it is still at its place: nothing is sent instead.
                self.put(left, b"")
                self.refused += 1


class Tap:
    """What arrives at a device over IPv4: `frames` packets may wait, of up to `size` - HEADER bytes each."""

    # The kernel's own header, the address of the sender, and padding before that of Ethernet.
    HEADER = 66

    def __init__(self, device, frames, size):
        self.frames, self.size, self.next = frames, size, 0
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        ring = struct.pack("IIII", BLOCK, frames * size // BLOCK, size, frames)
        self.sock.setsockopt(SOL_PACKET, PACKET_RX_RING, ring)
        self.view = memoryview(mmap.mmap(self.sock.fileno(), frames * size))
        self.sock.bind((device, ETH_P_IP))

    def take(self, layout):
        """Each packet that has arrived, unpacked by a struct.Struct from the Ethernet header on."""
        while self.view[self.next * self.size]:
            start = self.next * self.size
            yield layout.unpack_from(self.view, start + self.HEADER)
            self.view[start] = 0
            self.next = (self.next + 1) % self.frames

    def lost(self):
        """How many there was no room for since the last call."""
        return struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
