#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module is loaded and unloaded, and the namespace deleted, while packets of
# all kinds are on their way on all CPUs. Fails by a kernel log that complains,
# by a module that cannot be unloaded, or by connections that are not answered
# once a service is there.
#
# Needs: two CPUs

. "$(dirname "$0")/../lib.sh"
setup

for flags in S A R; do
	keep_sending --flags $flags --first 30000
done

loaded=0 answered=0
for round in 1 2 3 4 5; do
	service $SVC
	answered=$((answered + $(short 20 --first $((round * 100)) | jq .answered)))
	# Moving slots: both doors are in use when everything goes away.
	lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
	lb ipvsadm -d -t $SVC -r 10.0.0.12:80
	case $round in
	1 | 4) lb ipvsadm -D -t $SVC ;;
	2 | 5) lb ipvsadm -C ;;
	3) lb ipvsadm -E -t $SVC -s rr && lb ipvsadm -D -t $SVC ;;
	esac
	if wait_for 20 rmmod ip_vs_mhs; then loaded=$((loaded + 1)); fi
done
eq "unloaded with packets in flight, each time" "$loaded" 5
eq "loaded again, each time it balances" "$answered" 100

# Edits to and from another scheduler, as fast as they come.
service $SVC
for sched in mh $SCHED rr $SCHED mh $SCHED mh $SCHED mh $SCHED; do
	lb ipvsadm -E -t $SVC -s "$sched"
done
settle
eq "after ten edits it balances" "$(short 20 --first 900 | jq .answered)" 20
ok "after ten edits: the scheduler of the last one" grep -q "$SVC $SCHED" <(lb ipvsadm -Ln)

# The namespace goes with all that is in it, moving slots and packets too.
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
lb ipvsadm -d -t $SVC -r 10.0.0.12:80
ip netns pids lb | xargs -r kill -9
ip netns del lb
gone() { ! ip netns list | grep -q '^lb'; }
ok "the namespace is gone" wait_for 30 gone
