#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A service for any port without persistence, which IPVS does not schedule for:
# in moving slots, and under handover, new flows get their entries and live ones
# are not broken, all the same. Fails when such flows are left to IPVS.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-30}
lb ipvsadm --set "$T" "$T" "$T"
any_port() { lb python3 "$HERE/any_port.py" "$@"; }
for n in 1 2 3 4; do serve $n udp $VIP 53; done

# check TEXT OPTION PROTO PORT: events of servers under live flows.
check() {
	local text=$1 option=$2 proto=$3 port=$4 home result
	local svc="$option $VIP:0" flow="--proto $proto --port $port --timeout 10"
	any_port --proto "$proto"
	settle
	# shellcheck disable=SC2086
	result=$(short 60 $flow)
	eq "$text: new flows are answered by all servers, no entry" \
		"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[60,4] 0"
	# shellcheck disable=SC2086
	start_long 40 --first 1000 $flow
	home=$(long_status .servers)

	# A server is given weight, and so takes slots of others, which are live.
	# shellcheck disable=SC2086
	lb ipvsadm -e $svc -r 10.0.0.11:0 -g -w 3
	eq "$text: moving: no live flow breaks or moves" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	between "$text: moving: those of moving slots have entries" "$(entries)" 1 39
	flows >"$WORK/before"
	# shellcheck disable=SC2086
	result=$(short 60 $flow)
	eq "$text: moving: new flows are answered" "$(jq .answered <<<"$result")" 60
	new_flows "$WORK/before" >"$WORK/new"
	between "$text: moving: those of moving slots have entries, too" "$(wc -l <"$WORK/new")" 3 57
	eq "$text: moving: for the port that they are to" "$(grep -vc " $VIP:$port\$" "$WORK/new")" 0
	lb sysctl -qw net.ipv4.vs.drop_packet=3
	# IPVS looks at it once a second.
	nap 2
	# shellcheck disable=SC2086
	eq "$text: moving: IPVS drops some of what is new, but refuses nothing" \
		"$(short 60 $flow | jq .answered)" 60
	lb sysctl -qw net.ipv4.vs.drop_packet=0
	# shellcheck disable=SC2086
	lb ipvsadm -e $svc -r 10.0.0.11:0 -g -w 1

	# Handover.
	any_port --proto "$proto" --edit --flag 3
	eq "$text: flag-3: no live flow breaks or moves" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	eq "$text: flag-3: each has an entry" "$(flows | grep -c '^10\.1\.3\.\|^10\.1\.4\.')" 40
	flows >"$WORK/before"
	# shellcheck disable=SC2086
	result=$(short 60 $flow)
	eq "$text: flag-3: new flows are answered, each has an entry" \
		"$(jq .answered <<<"$result") $(new_flows "$WORK/before" | wc -l)" "60 60"
	any_port --proto "$proto" --edit
}
check TCP -t tcp 80
# Of what a deleted server has the connections live on for their grace, datagrams do not.
home=$(long_status .servers)
lb ipvsadm -d -t $VIP:0 -r 10.0.0.12:0
eq "TCP: a server deleted: no live flow breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
result=$(short 60 --timeout 10)
eq "TCP: a server deleted: new flows are answered by others" \
	"$(jq -c '[.answered, .servers.rs2]' <<<"$result")" "[60,null]"
stop_long
# A client has the same port again soon after, while its slot moves.
again() {
	local flags
	for flags; do
		stray 60 --first 6000 --flags "$flags" >/dev/null
		settle
	done
}
refusals() { lb nstat -asz IcmpOutDestUnreachs | awk '/^Icmp/ { print $2 }'; }
nothing_is_refused() {
	local before
	before=$(refusals)
	again S
	eq "$1" "$(($(refusals) - before))" 0
}
again A
lb ipvsadm -e -t $VIP:0 -r 10.0.0.11:0 -g -w 3
settle
again A R
between "TCP: a port again: entries of flows that are over" "$(lb ipvsadm -Lnc | grep -c ' CLOSE ')" 5 60
lb sysctl -qw net.ipv4.vs.conn_reuse_mode=0
left=$(entries_from 6000 60)
again S
eq "TCP: a port again, conn_reuse_mode=0: by the entry of before" "$(entries_from 6000 60)" "$left"
lb sysctl -qw net.ipv4.vs.conn_reuse_mode=1
again R
nothing_is_refused "TCP: a port again: nothing is refused"
# What is half closed counts as over, if IPVS is told so.
lb sysctl -qw net.ipv4.vs.conn_reuse_mode=3
again A FA
between "TCP: half closed: entries" "$(entries_from 6000 60)" 5 60
nothing_is_refused "TCP: half closed: nothing is refused"
lb sysctl -qw net.ipv4.vs.conn_reuse_mode=1
# So does all that is on a server which is drained, and what is on one that is deleted.
lb sysctl -qw net.ipv4.vs.expire_nodest_conn=1
again S
for change in "-e -t $VIP:0 -r 10.0.0.11:0 -g -w 0" "-d -t $VIP:0 -r 10.0.0.11:0"; do
	# shellcheck disable=SC2086
	lb ipvsadm $change
	settle
	nothing_is_refused "TCP: expire_nodest_conn, ${change%% -t*}: nothing is refused"
done
lb sysctl -qw net.ipv4.vs.expire_nodest_conn=0
lb ipvsadm -C
ok "every entry fades" wait_for 180 no_entries
check UDP -u udp 53
stop_long
