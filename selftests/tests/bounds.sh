#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many servers, of which packets look at a few: one of 101 takes new connections,
# and is found by those of the others; connections whose server was deleted find
# it among 64. Fails when a search ends too early, or finds another server.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
where() { long_status '"\(.broken) \(.servers)"'; }

# A hundred servers that are overloaded by one connection each, which is never established: nobody is there.
ip -n lb route add 10.9.0.0/24 via 10.0.0.14
{
	echo "-A -t $SVC -s $SCHED -b flag-1"
	for n in $(seq 100); do echo "-a -t $SVC -r 10.9.0.$n:80 -m -x 1"; done
	echo "-a -t $SVC -r 10.0.0.11:80 -g"
} | lb ipvsadm -R
settle
overloaded() { lb ipvsadm -Ln | awk '/-> 10.9/ && $5 + $6 { n++ } END { print n + 0 }'; }
stray 600 --flags S --first 10000 >/dev/null
eq "fallback: all servers but one are overloaded" "$(overloaded)" 100
eq "fallback: the one that is left answers every new connection" \
	"$(short 60 --first 6000 | jq -c .servers)" '{"rs1":60}'
start_long 30 --first 7000
eq "fallback: they stay there" "$(where)" '0 {"rs1":30}'
# All are overloaded, or drained.
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
settle
refused() { short 30 --first 8000 --timeout 15 | jq -c .errors; }
eq "fallback: no server is left: new connections are refused" "$(refused)" '{"ConnectionRefusedError":30}'
for n in $(seq 100); do echo "-e -t $SVC -r 10.9.0.$n:80 -m -w 0"; done |
	lb ipvsadm -R
settle
eq "fallback: all are drained: new connections are refused" "$(refused)" '{"ConnectionRefusedError":30}'
eq "fallback: no live connection breaks" "$(long_status .broken)" 0
stop_long
lb ipvsadm -C

# Sixty-four servers; boxes 1 to 4 stand for a quarter of them each.
for n in 1 2 3 4; do ip -n lb route add 10.9.$n.0/24 via 10.0.0.1$n; done
# servers FIRST STEP WHAT [OPTIONS]: does that with some.
servers() {
	local i
	for ((i = $1; i < 64; i += $2)); do
		echo "$3 -t $SVC -r 10.9.$((i / 16 + 1)).$((i % 16 + 1)):80 ${*:4}"
	done | lb ipvsadm -R
}
lb ipvsadm -A -t $SVC -s $SCHED
servers 0 1 -a -g
settle
start_long 60 --first 1000
home=$(where)
# The slots of half of them are merged: only its entry says where a connection lives.
servers 0 2 -e -g -w 0
nap $((T * 3 / 2))
eq "pinned: no connection breaks or moves" "$(where)" "$home"
between "pinned: some connections have an entry" "$(entries_from 1000 60)" 10 50
servers 0 2 -d
settle
eq "pinned, their servers deleted: no connection breaks or moves" "$(where)" "$home"
stop_long
