#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job, step by step: real web servers, real TCP, servers that come and
# go under load; first with mhs, then the same with in-tree mh.

. "$(dirname "$0")/lib.sh"
T=${T:-20}
LONG_CONNECTIONS=${LONG_CONNECTIONS:-200}

bars() {
	jq -r '.servers | to_entries[] | "\(.key) \(.value)"' <<<"$1" | while read -r name n; do
		printf '      %-4s %4d ' "$name" "$n"
		printf '#%.0s' $(seq $((n / 4 + 1)))
		echo
	done
}

# broken connections, less those on server 3 once its grace is over
report() {
	local status n
	status=$(long_status .)
	broken=$(jq .broken <<<"$status")
	n=$(entries)
	((n <= peak)) || peak=$n
	printf '      entries %d, live connections %d of %d, broken %d\n' \
		"$n" "$(jq .alive <<<"$status")" "$LONG_CONNECTIONS" "$broken"
}

run() {
	SCHED=$1
	local result on3 before
	peak=0 broken=0
	echo
	echo "=== scheduler $SCHED: 4 servers, session timeout $T s"
	lb ipvsadm --set "$T" "$T" "$T"
	SERVERS=4 service $SVC

	echo "  1. 300 short connections"
	result=$(short 300)
	bars "$result"
	stable=$(entries)
	printf '      failed %d, entries %d\n' "$(jq .failed <<<"$result")" "$stable"
	broken_short=$(jq .failed <<<"$result")

	echo "  2. $LONG_CONNECTIONS long connections that keep sending"
	start_long "$LONG_CONNECTIONS" --first 10000 --pause 1
	report
	((stable += $(entries)))
	[[ $SCHED == mhs ]] || stable=$(entries)

	echo "  3. a fifth server is added"
	lb ipvsadm -a -t $SVC -r 10.0.0.15:80 -g
	settle
	report
	echo "  4. server 2 is set to weight 0"
	lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 0
	settle
	report
	echo "  5. server 3 is deleted"
	on3=$(long_status .servers.rs3)
	lb ipvsadm -d -t $SVC -r 10.0.0.13:80
	settle
	report
	before=$broken

	echo "  6. the session timeout passes"
	sleep $((T + 5))
	report
	late=$((broken - before))
	if [[ $SCHED == mhs ]]; then
		echo "      $on3 connections were on server 3, whose grace is over"
	else
		echo "      $on3 connections were on server 3; mh has no grace"
	fi
	if [[ $SCHED == mhs ]]; then
		# Those were promised a session timeout and had it; any other is broken.
		late=$((late > on3 ? late - on3 : 0))
	fi
	broken=$((before + late + broken_short))

	echo "  7. 300 more short connections"
	n=$(entries)
	result=$(short 300 --first 20000)
	bars "$result"
	printf '      failed %d, new entries %d\n' "$(jq .failed <<<"$result")" $(($(entries) - n))
	broken=$((broken + $(jq .failed <<<"$result")))
	if [[ $SCHED == mhs ]] && (($(entries) > n)); then
		((stable += $(entries) - n))
	fi
	stop_long
	if [[ $SCHED == mhs ]]; then
		echo "  8. the last pins fade"
		wait_for $((T * 10)) no_entries || ((stable += $(entries)))
		echo "      entries $(entries)"
	fi
	lb ipvsadm -D -t $SVC
}

echo "The kernel is $(uname -r), as it came in its package."
SERVERS=5
setup >&2
run mhs
mhs="mhs stable_entries=$stable peak_entries=$peak broken=$broken"
good=$((stable == 0 && broken == 0))
run mh
mh="mh stable_entries=$stable broken=$broken"
trap - EXIT
teardown >/dev/null || true
echo
echo "demo: $mhs; $mh"
((good))
