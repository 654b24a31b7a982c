# SPDX-License-Identifier: GPL-2.0
"""Packets by the thousand: a ring that is shared with the kernel (packet(7), PACKET_TX_RING).

Nearly all of the work of sending is the network's then. The frames leave by eth0.
"""

import mmap
import socket
import struct

SOL_PACKET = 263
PACKET_VERSION, PACKET_TX_RING, PACKET_LOSS, PACKET_VNET_HDR = 10, 13, 14, 15
TPACKET_V2 = 1
BLOCK = 1 << 16


class Ring:
    """`frames` frames of up to `size` bytes each, of which HEADER are not the packet's.

    With `vnet` each packet has a struct virtio_net_hdr in front, and one that the kernel or the
    device does not take is left out, and counted in `refused`.
    """

    HEADER = 32

    def __init__(self, frames, size, vnet=False):
        self.frames, self.size, self.vnet = frames, size, vnet
        self.refused = 0
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
