#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A program is asked about every packet first (NFQUEUE). What it lets go comes to
# the door in its system call, not in a softirq, and is forwarded and counted as
# all else. Fails when it makes entries, when counters do not add up, or, on a
# kernel that checks itself, when something counts that may be put on another CPU.

. "$(dirname "$0")/../lib.sh"
setup
modprobe -q nfnetlink_queue
modprobe -q nft_queue
lb nft -f - <<-RULES
	table inet hold {
		chain input {
			type filter hook input priority filter;
			meta l4proto tcp queue num 7
		}
	}
RULES
ip netns exec lb python3 "$HERE/nfqueue.py" 7 >"$WORK/queue" &
asked=$!
wait_for 30 grep -q ready "$WORK/queue"
service $SVC
service "$SVC6"
# connections SERVICE: those that IPVS has counted, as it knows them every 2 s.
connections() { lb ipvsadm -Ln --stats --exact | awk -v svc="$1" '$2 == svc { print $3 }'; }
are_counted() { [[ "$(connections $SVC) $(connections "$SVC6")" == "60 60" ]]; }

eq "every connection is answered" "$(short 60 | jq .answered)" 60
eq "IPv6: every connection is answered" "$(short 60 --vip $VIP6 | jq .answered)" 60
eq "no entry" "$(entries)" 0
ok "every connection is counted" wait_for 10 are_counted
start_long 40 --first 1000
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
eq "a server is drained: no connection breaks" "$(long_status .broken)" 0
between "a server is drained: its connections have entries" "$(entries)" 1 40
eq "new connections are answered" "$(short 40 --first 2000 | jq .answered)" 40
stop_long
kill $asked
eq "without the program all waits" "$(short 5 --first 3000 --timeout 3 | jq .answered)" 0
lb nft delete table inet hold
eq "without the rule nothing does" "$(short 20 --first 4000 | jq .answered)" 20
