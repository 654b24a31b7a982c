#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory fails, at each allocation in turn, while servers are added, drained and
# deleted. Whatever fails, a server that was deleted or drained gets no new
# connection, and a moment later the table is what it should be. Needs a kernel
# with fault injection; without it there is nothing to test.
#
# Needs: fault injection

. "$(dirname "$0")/../lib.sh"
if [[ ! -e /proc/self/fail-nth ]]; then
	echo "ok 1 this kernel has no fault injection # SKIP"
	echo "1..1"
	rm -rf "$WORK"
	exit 0
fi
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
FAILS=${FAILS:-25}

# ipvsadm, waiting for commands, so that its own start does not fail.
mkfifo "$WORK/commands"
lb ipvsadm -R <"$WORK/commands" >"$WORK/said" 2>&1 &
exec 8>"$WORK/commands"
pid() { pgrep -x ipvsadm; }
wait_for 10 pid >/dev/null
PID=$(pid)
echo N >/sys/kernel/debug/failslab/ignore-gfp-wait
echo N >/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait 2>/dev/null
echo 0 >/sys/kernel/debug/fail_page_alloc/min-order 2>/dev/null
echo 0 >/sys/kernel/debug/failslab/verbose
echo 0 >/sys/kernel/debug/fail_page_alloc/verbose 2>/dev/null

# failing N COMMAND: the Nth allocation that the command needs fails.
failing() {
	local n=$1
	shift
	if ! kill -0 "$PID" 2>/dev/null; then
		lb ipvsadm -R <"$WORK/commands" >>"$WORK/said" 2>&1 &
		wait_for 10 pid >/dev/null
		PID=$(pid)
	fi
	echo "$n" >"/proc/$PID/fail-nth"
	echo "$*" >&8
	nap 0.1
	# What is left of the count was not needed.
	[[ $(cat "/proc/$PID/fail-nth" 2>/dev/null || echo 0) == 0 ]] && injected=$((injected + 1))
	echo 0 >"/proc/$PID/fail-nth" 2>/dev/null
}
is() { lb ipvsadm -Ln | grep -q "$1"; }

injected=0 drained=0 deleted=0 rounds=0 answered=0
lb ipvsadm -A -t $SVC -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g; done
settle
for nth in $(seq "$FAILS"); do
	first=$((nth * 100))
	failing "$nth" "-e -t $SVC -r 10.0.0.13:80 -g -w 0"
	# A command that never got to IPVS did nothing: it is given again.
	is '10.0.0.13:80 *Route *0' || lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g -w 0
	failing "$nth" "-d -t $SVC -r 10.0.0.14:80"
	is 10.0.0.14:80 && lb ipvsadm -d -t $SVC -r 10.0.0.14:80
	result=$(short 20 --first $first)
	rounds=$((rounds + 1))
	answered=$((answered + $(jq .answered <<<"$result")))
	drained=$((drained + $(jq '.servers.rs3 // 0' <<<"$result")))
	deleted=$((deleted + $(jq '.servers.rs4 // 0' <<<"$result")))
	failing "$nth" "-a -t $SVC -r 10.0.0.14:80 -g"
	is 10.0.0.14:80 || lb ipvsadm -a -t $SVC -r 10.0.0.14:80 -g
	failing "$nth" "-e -t $SVC -r 10.0.0.13:80 -g -w 1"
	is '10.0.0.13:80 *Route *1' || lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g
done
between "allocations that failed" "$injected" 10 $((FAILS * 4))
eq "rounds of new connections" $rounds "$FAILS"
# Where there was no memory for another table, the old one has slots of the server that is gone.
between "new connections that were answered" $answered $((FAILS * 10)) $((FAILS * 20))
eq "a drained server got no new connection" "$drained" 0
eq "a deleted server got no new connection" "$deleted" 0
# What failed is tried again soon.
all_four() { [[ $(short 60 --first $((RANDOM % 9000 + 20000)) | jq -c '[.answered, (.servers | length)]') == "[60,4]" ]]; }
ok "in the end all servers are used" wait_for 10 all_four

made=0
for nth in $(seq "$FAILS"); do
	failing "$nth" "-A -t $VIP:81 -s $SCHED"
	is "$VIP:81" && made=$((made + 1))
	lb ipvsadm -D -t $VIP:81 2>/dev/null
done
between "services that could be made, and not" "$made" 1 $((FAILS - 1))
for nth in $(seq "$FAILS"); do
	failing "$nth" "-E -t $SVC -s rr"
	failing "$nth" "-E -t $SVC -s $SCHED"
	is "$SVC" || break
done
lb ipvsadm -E -t $SVC -s $SCHED
settle
eq "after failed edits: new connections are answered" "$(short 40 --first 9500 | jq .answered)" 40
exec 8>&-
