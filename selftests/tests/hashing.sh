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

# Strays: in a stable table nothing makes an entry; where slots are moving, an
# ACK may belong to a flow of before and an RST ends whatever it belongs to.
stray 200 --flags A >/dev/null
stray 200 --flags R >/dev/null
nap 1
eq "stray ACK and RST in stable slots: no entry" "$(entries)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
stray 200 --flags R >/dev/null
nap 1
eq "RST in unstable slots: no entry" "$(entries)" 0

# What gets an entry is counted, too, and once.
nap 3
counts() { lb ipvsadm -Ln --stats --exact | awk '/^TCP/ { print $3, $4 }'; }
read -r conns packets < <(counts)
short 60 >/dev/null
between "moving slots: some connections get an entry" "$(entries)" 3 57
all_counted() {
	local more all
	read -r more all < <(counts)
	((more - conns >= 60 && all - packets >= 240))
}
ok "moving slots: every connection and packet is counted" wait_for 10 all_counted
eq "moving slots: and none twice" "$(counts | awk -v before="$conns" '{ print $1 - before }')" 60

# net.ipv4.vs.drop_packet is about what would get an entry: here of each of them.
lb sysctl -qw net.ipv4.vs.am_droprate=1 net.ipv4.vs.drop_packet=3
nap 2
between "drop_packet: connections of moving slots are refused an entry" \
	"$(short 60 --first 60 --timeout 5 | jq .failed)" 3 57
eq "drop_packet: none is made" "$(entries_from 60 60)" 0
lb sysctl -qw net.ipv4.vs.drop_packet=0
