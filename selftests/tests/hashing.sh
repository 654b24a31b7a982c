#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The table depends on the servers alone, the slot on the client; statistics
# count what is forwarded without an entry. Fails when the order of servers gets
# into the table, when -b flag-2 is ignored, or when a counter is missed.

. "$(dirname "$0")/../lib.sh"
setup
service $SVC

first=$(short 60 --clients | jq -cS .clients)
lb ipvsadm -D -t $SVC
{
	echo "-A -t $SVC -s $SCHED"
	for n in 3 1 4 2; do echo "-a -t $SVC -r 10.0.0.1$n:80 -g"; done
} | lb ipvsadm -R
settle
eq "another order of servers, the same table" "$(short 60 --clients | jq -cS .clients)" "$first"

eq "one address, one server" "$(short 30 --one-address | jq '.servers | length')" 1
lb ipvsadm -E -t $SVC -s $SCHED -b flag-2
between "with ports, several" "$(short 30 --one-address | jq '.servers | length')" 2 4
eq "no entry" "$(entries)" 0

# Servers that were never counted before; deleted ones come back with their counters.
lb ipvsadm -D -t $SVC
service "$SVC6"
short 50 --vip $VIP6 >/dev/null
# IPVS adds its counters up every 2 s, those of a service and its servers each in their turn.
counted() {
	lb ipvsadm -Ln --stats --exact |
		awk '/^TCP/ { svc = $3 } /->.*:80/ { n += $3 } END { exit svc < 50 || n < 50 }'
}
wait_for 20 counted || true
read -r conns packets < <(lb ipvsadm -Ln --stats --exact | awk '/^TCP/ { print $3, $4 }')
eq "statistics: connections of the service" "$conns" 50
between "statistics: packets of the service" "$packets" 200 500
sum=$(lb ipvsadm -Ln --stats --exact | awk '/->.*:80/ { n += $3 } END { print n }')
eq "statistics: connections of its servers" "$sum" 50
total=$(lb awk 'NR == 3 { print strtonum("0x" $1) }' /proc/net/ip_vs_stats 2>/dev/null ||
	echo "$((16#$(lb sed -n 3p /proc/net/ip_vs_stats | awk '{ print $1 }')))")
ok "statistics: the total counts too" test "${total:-0}" -ge 50

lb ipvsadm -D -t "$SVC6"
service $SVC

# Strays: an ACK or RST out of nothing makes no entry, stable or not.
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
in_ns client python3 - <<'PY'
import socket
import struct

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for i in range(200):
    src = socket.inet_aton(f"10.1.9.{i + 1}")
    dst = socket.inet_aton("10.0.0.100")
    head = struct.pack("!HHIIBBHHH", 4000 + i, 80, 1, 1, 0x50, 4, 1024, 0, 0)
    data = src + dst + struct.pack("!BBH", 0, 6, len(head)) + head
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:]
    raw.bind((socket.inet_ntoa(src), 0))
    raw.sendto(head, ("10.0.0.100", 0))
PY
sleep 1
eq "RST in unstable slots: no entry" "$(entries)" 0
