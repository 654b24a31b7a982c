#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What makes a service stateful is turned on and off again: net.ipv4.vs.conntrack,
# persistence, handover. Meanwhile connections got entries for other servers
# than the table says; they live on when the service is stateless again. Fails
# when a service does not take notice of such entries.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-10}
# A balancer beside the first, so that both can wait at the same time.
VIP2=10.0.0.101
SVC2=$VIP2:80
plug lb2 10.0.0.3 fd00::3
ip -n lb2 route add 10.1.0.0/16 via 10.0.0.2
ip -n lb2 addr add $VIP2/32 dev eth0
for n in 1 2 3 4; do ip -n rs$n addr add $VIP2/32 dev lo; done
lb2() { in_ns lb2 "$@"; }
lb ipvsadm --set "$T" "$T" "$T"
lb2 ipvsadm --set "$T" "$T" "$T"
modprobe -q nf_conntrack
service $SVC
lb ipvsadm-save -n | sed "s/$SVC/$SVC2/" | lb2 ipvsadm-restore
settle

# Another hash, after handover: every slot is another one, and every entry counts.
start_long 60
home=$(long_status .servers)
lb ipvsadm -E -t $SVC -s $SCHED -b flag-3
eq "handover: no connection breaks, each has an entry" "$(long_status .broken) $(entries)" "0 60"
lb ipvsadm -E -t $SVC -s $SCHED -b flag-2
eq "handover, then flag-2: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
between "flag-2: ports count" "$(short 30 --one-address --first 3000 | jq '.servers | length')" 2 4
lb ipvsadm -E -t $SVC -s $SCHED
eq "and back: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
stop_long

# Entries asked for, one by the namespace's setting, one by the service's own.
start_long 60 --first 1000 --vip $VIP,$VIP2
home=$(long_status .servers)
lb ipvsadm -E -t $SVC -s $SCHED -b flag-3
lb2 ipvsadm -E -t $SVC2 -s $SCHED -b flag-3
eq "two balancers, handover: no connection breaks" "$(long_status .broken_at)" "{}"
lb sysctl -qw net.ipv4.vs.conntrack=1
lb ipvsadm -E -t $SVC -s $SCHED
lb2 ipvsadm -E -t $SVC2 -s $SCHED -p 600
eq "conntrack and -p: no connection breaks" "$(long_status .broken_at)" "{}"
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
lb2 ipvsadm -e -t $SVC2 -r 10.0.0.14:80 -g -w 0
eq "a server drained: no connection breaks or moves" \
	"$(long_status .broken_at) $(long_status .servers)" "{} $home"
between "connections of the drained server" "$(long_status .servers.rs4)" 4 40
# Until slots are merged, and then for as long as an entry can live without a packet: 2 minutes, in
# TIME_WAIT.
nap $((T + 120 + T))
eq "later: no connection breaks or moves" \
	"$(long_status .broken_at) $(long_status .servers)" "{} $home"
lb sysctl -qw net.ipv4.vs.conntrack=0
lb2 ipvsadm -E -t $SVC2 -s $SCHED
settle
eq "conntrack off again: no connection breaks" "$(long_status ".broken_at[\"$VIP\"] // 0")" 0
eq "-p off again: no connection breaks" "$(long_status ".broken_at[\"$VIP2\"] // 0")" 0
eq "all are where they were" "$(long_status .servers)" "$home"
stop_long
