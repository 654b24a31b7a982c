#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A published workload (selftests/workload.sh), smaller and faster than it was: what
# ipvsadm-mhs simulate computes with src/core, then the same connections and the
# same changes with packets through IPVS. Fails when a connection breaks that need
# not, when a tenth of them is tracked, or when the two do not agree.
#
#   eth0 --- in0 [ lb: VIP 192.0.2.100 ] out0 --- servers
#
# All of it is one namespace. Clients are addresses from 10.128.0.0 on, whose
# packets leave by eth0; servers are neighbours from 10.0.0.1 on, and jet.py looks
# at the device "servers" which of them each packet was sent to.
#
#   FLEET=N  SLOTS=N                  servers, and slots of a table
#   CONNECTIONS=N  SEED=N             connections, and when which begins and which server goes
#   SPEED=N                           seconds of the workload in one of the guest's
#   REMOVAL=drain|delete              servers do not fail, but are drained or deleted
#   NODEST=1                          they fail, and net.ipv4.vs.expire_nodest_conn is set
#   SCHED=mh                          another scheduler, whose figures are only shown
#
# Needs: hours

# No boxes.
SERVERS=0
. "$(dirname "$0")/../lib.sh"
. "$HERE/workload.sh"
FLEET=${FLEET:-50}
CONNECTIONS=${CONNECTIONS:-20000}
SPEED=${SPEED:-10}
SEED=${SEED:-1}
REMOVAL=${REMOVAL:-fail}
NODEST=${NODEST:-0}
SLOTS=${SLOTS:-4093}
for name in FLEET CONNECTIONS SPEED SEED SLOTS; do
	[[ ${!name} =~ ^[1-9][0-9]*$ ]] || {
		echo "Bail out! $name=${!name} is not a number"
		exit 2
	}
done
# Of IPVS, in seconds: how long an entry stays after its connection, to be seen by then.
FIN=5
SVC=192.0.2.100:80

trap teardown EXIT
modprobe ip_vs
if [[ $SCHED == mhs ]]; then
	modprobe ip_vs_mhs table_size="$SLOTS" ${EXPRESS:+express=1}
fi

network() {
	ip netns add lb
	lb sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
		net.ipv4.vs.expire_nodest_conn="$NODEST"
	{
		echo "link add eth0 type veth peer name in0 address 02:00:00:00:ff:01"
		echo "link add out0 type veth peer name servers"
		for device in lo eth0 in0 out0 servers; do echo "link set $device up"; done
		echo "addr add 192.0.2.100/32 dev in0"
		echo "route add 10.128.0.0/9 dev in0"
		echo "route add 10.0.0.0/16 dev out0"
		for ((n = 0; n < FLEET; n++)); do
			printf 'neigh add 10.0.%d.%d lladdr 02:00:00:00:%02x:%02x dev out0 nud permanent\n' \
				$(((n + 1) / 256)) $(((n + 1) % 256)) $((n / 256)) $((n % 256))
		done
	} | ip -n lb -batch -
	lb ipvsadm --set $T $FIN $T
	{
		echo "-A -t $SVC -s $SCHED"
		for ((n = 1; n <= FLEET; n++)); do
			echo "-a -t $SVC -r 10.0.$((n / 256)).$((n % 256)):80 -g -w 1"
		done
	} | lb ipvsadm -R
	settle
}

# Both ways. The kernel's timers do not wait for a machine that is late.
while :; do
	# Of IPVS, in seconds: the session timeout.
	T=$((900 / SPEED))
	mapfile -t options < <(workload "$FLEET" "$CONNECTIONS" "$SPEED")
	((NODEST == 0)) || options+=(--expire-nodest-conn)
	ipvsadm-mhs simulate --json "${options[@]}" --removal "$REMOVAL" --timeout $T --linger $FIN \
		--table-size "$SLOTS" --seed "$SEED" --plan "$WORK/plan" >"$WORK/told"
	network
	limit=inf
	((SPEED < 4)) || limit=$((T * 1000 / 60))
	lb python3 "$HERE/jet.py" --servers "$FLEET" --late $limit "$WORK/plan" "$WORK/told" >"$WORK/result" || break
	late=$(jq .late "$WORK/result")
	[[ $limit != inf ]] && ((late > limit)) || break
	SPEED=$((SPEED / 2))
	echo "# $late ms late, that is too much: once more, at half the speed"
	ip netns del lb
done
# result FILTER, told FILTER
result() { jq "$1" "$WORK/result"; }
told() { jq "$1" "$WORK/told"; }

jq -c --arg sched "$SCHED" --arg removal "$REMOVAL" --argjson seed "$SEED" --argjson fleet "$FLEET" \
	--argjson nodest "$NODEST" --argjson speed "$SPEED" --slurpfile told "$WORK/told" \
	'. + {sched: $sched, removal: $removal, nodest: $nodest, seed: $seed, servers: $fleet, speed: $speed,
	simulated: ($told[0] | del(.samples))} | if $sched == "mhs" then . else del(.expected) end' \
	"$WORK/result" | sed 's/^/# jet /'
# percent GOT TOLD: one number of both, compared.
percent() {
	jq -n --slurpfile result "$WORK/result" --slurpfile told "$WORK/told" \
		"(\$result[0]$1) / (\$told[0]$2) * 100 | round"
}
eq "all connections were made" "$(result .connections)" "$(told .flows)"
if [[ $SCHED == mhs ]]; then
	eq "no connection is broken" "$(result .broken)" 0
	eq "no packet is lost" "$(result .lost)" 0
	tracked=$(result .tracked)
	if ((NODEST == 0)); then
		between "tracked: some, and less than a tenth of all" "$tracked" 1 $(($(result .connections) / 10))
	fi
	# A packet may be late for a merge, and an entry for somebody who looks.
	between "each connection has the server that src/core says, but for 1 in 1000" \
		"$(result .expected.server_differs)" 0 $(($(result .connections) / 1000))
	between "each is tracked if src/core says so, but for 2 % of the tracked" \
		"$(result .expected.tracked_differs)" 0 $((tracked / 50))
	between "as many entries at the peak, in percent" "$(percent .peak .mhs.entries_peak)" 90 110
	between "the busiest server has as much over the average, in percent" \
		"$(percent .load .mhs.load_last)" 98 102
else
	eq "tracked: all" "$(result .tracked)" "$(told .flows)"
	between "entries at the peak as simulated, in percent" "$(percent .peak .stateful.entries_peak)" 90 110
fi
