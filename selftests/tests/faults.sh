#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every allocation of every command fails, one at a time (faults.py), and then any
# of them at random, those of work that is done later and of packets too. Fails when
# a command says something else than what then is, when a server that was deleted or
# drained has a slot of the new table at any time, when the table never becomes that
# of a service for which nothing failed, or when a connection breaks for want of an
# entry.
#
# Needs: fault injection

. "$(dirname "$0")/../lib.sh"
had=$(complaints)
if [[ ! -e /proc/self/fail-nth ]]; then
	echo "ok 1 this kernel has no fault injection # SKIP"
	echo "1..1"
	rm -rf "$WORK"
	exit 0
fi
# KINDS, one a line: only these. MODULE=1: the module is loaded with faults, too.
mapfile -t KINDS < <(printf %s "${KINDS-}")
RANDOM_SECONDS=${RANDOM_SECONDS:-15}
setup
# What the kernel says of that is no complaint: scripts/kmsg-check.
echo "mhs selftest: memory is made to fail" >/dev/kmsg
lb ipvsadm --set 20 20 20
slab=/sys/kernel/debug/failslab pages=/sys/kernel/debug/fail_page_alloc
for what in $slab $pages; do
	echo N >$what/ignore-gfp-wait
	echo 0 >$what/verbose
done
echo N >$pages/ignore-gfp-highmem
echo 0 >$pages/min-order

# Not by `ip netns exec`, which has no debugfs.
faults() { nsenter --net=/run/netns/lb python3 "$HERE/faults.py" "$@" 2>&1; }
# all_kinds WHAT...: and a result for one that does not come to its end.
all_kinds() { faults "$@" || echo '{"kind": "the end", "hit": 0, "amiss": ["it was not reached"]}'; }
modprobe -q ip_vs_rr
modprobe ip_vs_mhs 2>/dev/null
results() {
	local line
	while read -r line; do
		if [[ $line != \{* ]]; then
			echo "# $line"
			continue
		fi
		echo "# $line"
		eq "$(jq -r '"\(.kind): \(.hit) allocations failed, one at a time"' <<<"$line")" \
			"$(jq -c .amiss <<<"$line")" "[]"
		hit=$((hit + $(jq .hit <<<"$line"))) kinds=$((kinds + 1))
	done
}
hit=0 kinds=0
results < <(all_kinds commands "${KINDS[@]}")
ok "kinds of commands: $kinds" test $kinds = $((${#KINDS[@]} ? ${#KINDS[@]} : 30))
ok "allocations that failed: $hit" test $hit -ge $((kinds * 2))
wait_for 20 rmmod ip_vs_mhs 2>/dev/null
# Each failure in the loader of modules is a stack in the log; scripts/hostile knows.
if [[ ${MODULE-} ]]; then
	file=$(modinfo -n ip_vs_mhs)
	results < <(all_kinds module "$file" table_size=251 hash_key=000102030405060708090a0b0c0d0e0f \
		balance=10 sched_name=mh express=1)
fi

echo Y >$pages/ignore-gfp-highmem
modprobe ip_vs_mhs
result=$(faults starved 3 | tail -n 1)
echo "# $result"
eq "no memory for 3 s: a table is tried for again four times a second, and made in the end" \
	"$(jq -c .amiss <<<"$result")" "[]"

# No memory for an entry while slots move: the packets of a new connection go where they all can.
# Those of that size have one cache, and packets none of it.
cache=$(realpath /sys/kernel/slab/ip_vs_conn)
service $SVC
before=$(short 60 --first 100 --clients | jq -cS .clients)
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
settle
echo 1 >"$cache/failslab"
echo Y >$slab/cache-filter
echo N >$slab/task-filter
echo -1 >$slab/times
echo 100 >$slab/probability
result=$(short 60 --first 100 --clients --timeout 5 | jq -cS .)
echo 0 >$slab/probability
echo N >$slab/cache-filter
echo 0 >"$cache/failslab"
eq "no memory for entries: every new connection is answered" "$(jq .answered <<<"$result")" 60
ok "no memory for entries: by the old table" test "$(jq -cS .clients <<<"$result")" = "$before"
# Of commands that failed before, others may not have faded yet.
eq "no memory for entries: there are none" "$(entries_from 100 60)" 0
lb ipvsadm -C

# Anything at any time while servers come, change and go under traffic, with a session timeout of 5 s,
# so that slots are merged all the time.
lb ipvsadm --set 5 5 5
keep_sending --flags S
traffic=$!
result=$(faults random "$RANDOM_SECONDS" "${SEED:-1}" | tail -n 1)
kill $traffic
echo "# $result"
eq "at random: what should be is, in the end, and no deleted or drained server has new slots meanwhile" \
	"$(jq -c .amiss <<<"$result")" "[]"
echo "mhs selftest: memory does not fail any more" >/dev/kmsg
service $SVC
eq "after all: services work" "$(short 40 | jq .answered)" 40
eq "nothing new in the kernel's log" $(($(complaints) - had)) 0
