#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module, the service and the namespace come and go under traffic. What
# breaks here shows in the kernel's log or in a module that cannot be unloaded.
#
# Needs: two CPUs

. "$(dirname "$0")/../lib.sh"
setup

lb ipvsadm -A -t $SVC -s $SCHED
ok "ipvsadm loads the module by itself" test -d /sys/module/ip_vs_mhs
lb ipvsadm -C
ok "unloaded while unused" wait_for 20 rmmod ip_vs_mhs

service $SVC
ok "not unloaded while in use" bash -c '! rmmod ip_vs_mhs 2>/dev/null'
start_long 20
eq "live connections" "$(long_status .broken)" 0

# Other schedulers and back. Stateless flows have no entry, so only new ones count.
for sched in mh $SCHED rr $SCHED mh $SCHED; do
	lb ipvsadm -E -t $SVC -s "$sched"
done
settle
eq "after other schedulers: new connections work" "$(short 40 --first 100 | jq .answered)" 40

# Deleted and made again under load.
for _ in 1 2 3; do
	lb ipvsadm -D -t $SVC
	service $SVC
done
eq "after deletion: new connections work" "$(short 40 --first 200 | jq .answered)" 40
stop_long

# A server deleted and the service with it, in the middle of grace.
lb ipvsadm -d -t $SVC -r 10.0.0.11:80
lb ipvsadm -D -t $SVC

# The same name over and over; a hundred servers.
{
	echo "-A -t $SVC -s $SCHED"
	for n in $(seq 100); do echo "-a -t $SVC -r 10.0.7.$n:80 -g"; done
	for n in $(seq 5 100); do echo "-d -t $SVC -r 10.0.7.$n:80"; done
} | lb ipvsadm -R
eq "a hundred servers, most deleted" "$(lb ipvsadm -Ln | grep -c 10.0.7)" 4

# The namespace goes with the service in it.
ip netns pids lb | xargs -r kill -9
ip netns del lb
