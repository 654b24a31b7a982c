# SPDX-License-Identifier: GPL-2.0
"""To be imported before scapy.all, which then loads only what the tests use: all of its layers take seconds
in an emulated guest."""

from scapy.config import conf

conf.load_layers = ["l2", "inet", "inet6", "sctp", "ipsec"]
