#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# With net.ipv4.vs.sloppy_tcp and sloppy_sctp IPVS schedules what comes from the
# middle of a connection. Connections live on all the same where servers are
# drained, deleted (for their grace) and added. Fails when such packets are
# scheduled as if they were new.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
modprobe sctp
lb sysctl -qw net.ipv4.vs.sloppy_tcp=1 net.ipv4.vs.sloppy_sctp=1
for n in 1 2 3 4; do serve $n sctp $VIP 99; done

# check TEXT PROTO SERVICE: events of servers under live connections.
check() {
	local text=$1 proto=$2 svc=$3 port=${3##*:} result
	{
		echo "-A $svc -s $SCHED"
		for n in 1 2 3 4; do echo "-a $svc -r 10.0.0.1$n:$port -g -w 1"; done
	} | lb ipvsadm -R
	settle
	eq "$text: new connections are answered, no entry" \
		"$(short 60 --proto $proto --port $port | jq .answered) $(entries)" "60 0"
	start_long 60 --first 1000 --proto $proto --port $port
	home=$(long_status .servers)
	eq "$text: no connection is broken, no entry" "$(long_status .broken) $(entries)" "0 0"
	# shellcheck disable=SC2086
	lb ipvsadm -d $svc -r 10.0.0.13:$port
	eq "$text: a server deleted: no connection breaks or moves" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	result=$(short 60 --proto $proto --port $port)
	eq "$text: a server deleted: new connections go elsewhere" \
		"$(jq '.answered - (.servers.rs3 // 0)' <<<"$result")" 60
	# shellcheck disable=SC2086
	lb ipvsadm -a $svc -r 10.0.0.13:$port -g
	# shellcheck disable=SC2086
	lb ipvsadm -e $svc -r 10.0.0.14:$port -g -w 0
	eq "$text: that added again, another drained: no connection breaks or moves" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	# shellcheck disable=SC2086
	lb ipvsadm -d $svc -r 10.0.0.14:$port
	eq "$text: deleted: no connection breaks or moves" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
}
check TCP tcp "-t $SVC"
# The end of the grace is the end of those connections, and of no other.
on4=$(jq .rs4 <<<"$home")
over() { [[ $(long_status '.servers.rs4 // 0') == 0 ]]; }
ok "TCP: after grace its connections end" wait_for $((T * 6)) over
eq "TCP: and no other" "$(long_status .broken)" "$on4"
stop_long
lb ipvsadm -C
ok "every entry fades" wait_for 180 no_entries
check SCTP sctp "--sctp-service $VIP:99"
stop_long
