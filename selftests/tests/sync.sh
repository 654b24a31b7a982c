#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A balancer and its backup, with the sync daemon of IPVS: in the middle of an
# unstable time the flows move to the backup. Pinned ones arrive with their
# entries, all others by the table. Fails when the backup takes no notice of
# entries for slots that it deems stable.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-60}
plug lb2 10.0.0.3 fd00::3
ip -n lb2 route add 10.1.0.0/16 via 10.0.0.2
both() {
	lb "$@"
	in_ns lb2 "$@"
}
both ipvsadm --set "$T" "$T" "$T"
# As the manual has it.
both sysctl -qw net.ipv4.vs.sync_threshold="2 10"
service $SVC
lb ipvsadm-save -n | in_ns lb2 ipvsadm-restore
lb ipvsadm --start-daemon master --mcast-interface eth0 --syncid 7
in_ns lb2 ipvsadm --start-daemon backup --mcast-interface eth0 --syncid 7
for ns in lb lb2; do ip -n $ns route add 224.0.0.0/4 dev eth0; done

start_long 80
# The same changes on both, as operators do.
both ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
both ipvsadm -d -t $SVC -r 10.0.0.13:80
both ipvsadm -a -t $SVC -r 10.0.0.13:80 -g
eq "moving slots: no connection breaks" "$(long_status .broken)" 0
home=$(long_status .servers)
pins=$(entries)
# What IPVS tells may get lost; after ten more packets of the flow it tells again.
told() { in_ns lb2 awk 'NR > 1' /proc/net/ip_vs_conn_sync | wc -l; }
all_told() {
	long_status .total >/dev/null
	(($(told) >= pins))
}
wait_for 40 all_told || true
between "the backup has the pins" "$(told)" "$pins" 80
between "and those are not all flows" "$pins" 1 79

# takes_over FROM TO: the address moves, as VRRP would move it.
takes_over() {
	ip -n "$1" addr del $VIP/32 dev eth0
	ip -n "$2" addr add $VIP/32 dev eth0
	ip -n client neigh flush all
}
in_ns lb2 ipvsadm --stop-daemon backup
takes_over lb lb2
eq "on the backup: no connection breaks" "$(long_status .broken)" 0
eq "on the backup: all are where they were" "$(long_status .servers)" "$home"
eq "on the backup: new connections are answered" "$(short 40 --first 1000 | jq .answered)" 40
takes_over lb2 lb
eq "and back: no connection breaks" "$(long_status .broken)" 0
eq "and back: all are where they were" "$(long_status .servers)" "$home"
stop_long
lb ipvsadm --stop-daemon master
