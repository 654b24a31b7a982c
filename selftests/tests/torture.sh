#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything at once for TIME seconds, by chance as SEED has it (torture.py): packets of all kinds
# on all CPUs, while servers, services, settings, namespaces and the module itself come and go,
# others ask and listen, and memory fails. Fails when a server that is deleted or drained answers a
# new connection, when a command hangs or is refused, when it does not balance in the end, when next
# to nothing was done or answered, or when something is left: entries, namespaces, memory, a reference
# to the module. LOG=1 prints what is done.
#
# Needs: two CPUs

TIME=${TIME:-45}
SEED=${SEED:-1}
# KiB that the kernel's own memory may grow by: what allocators keep for each CPU, and tables that
# grow with what there was at most.
TOLERANCE=${TOLERANCE:-8192}
# Seconds that a server keeps a connection which nobody uses. Those that were broken are never closed:
# in an hour it would have as many as it can.
KEEPALIVE=20
. "$(dirname "$0")/../lib.sh"

objects() { awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }' /proc/slabinfo; }

# Memory that is free already, but not given back yet: spare slabs, and what KASAN holds back.
give_back() {
	local cache
	for cache in /sys/kernel/slab/*/shrink; do echo 1 >"$cache"; done
} 2>/dev/null

# The boxes of lib.sh, with more addresses and more services on the servers.
world() {
	local n ns
	setup
	modprobe -q nf_tables
	modprobe -q sctp
	tunnel_ends
	for ns in lb $(seq -f 'rs%g' "$SERVERS"); do
		for n in 1 2 3 4; do
			if [[ $ns == lb ]]; then
				ip -n lb addr add 10.0.0.10$n/32 dev eth0
				ip -n lb addr add fd00::10$n/128 dev eth0 nodad preferred_lft 0
			elif ((n != 3)); then
				ip -n "$ns" addr add 10.0.0.10$n/32 dev lo
				ip -n "$ns" addr add fd00::10$n/128 dev lo nodad
			fi
		done
		ip -n "$ns" route add 10.4.0.0/16 via 10.0.0.2
	done
	mark_101
	# A connection whose other end has gone keeps its namespace until it gives up.
	for ns in client lb $(seq -f 'rs%g' "$SERVERS"); do
		in_ns "$ns" sysctl -qw net.ipv4.tcp_orphan_retries=1 net.ipv4.tcp_rto_max_ms=2000 net.sctp.rto_max=1000 \
			net.sctp.rto_initial=500 net.sctp.association_max_retrans=2
	done
	ip -n client route add local 10.4.0.0/16 dev lo
	# Clients of the masquerading service, 10.0.0.103: servers answer them through the balancer.
	ip -n client route add local 10.2.0.0/15 dev lo
	ip -n lb route add 10.2.0.0/15 via 10.0.0.2
	lb sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
		net.ipv4.conf.eth0.send_redirects=0
	ip -n lb route add 224.0.0.0/4 dev eth0
	for n in $(seq "$SERVERS"); do
		ip -n "rs$n" route add 10.2.0.0/15 via 10.0.0.1
		serve "$n" udp $VIP 53
		serve "$n" sctp $VIP 99
	done
	lb ipvsadm --set 10 10 10
}

# torture SECONDS SEED: what there was to say is left in $WORK/said.
torture() {
	local quiet=--quiet
	[[ ! ${LOG-} ]] || quiet=
	python3 "$HERE/torture.py" --seconds "$1" --seed "$2" $quiet | tee "$WORK/said" | grep -v '^{'
	return "${PIPESTATUS[0]}"
}
figures() { grep '^{' "$WORK/said" | tail -n 1; }

# Nothing is left of the services; then neither of the boxes.
leave() {
	local set
	for set in conntrack=0 conn_max=1000000 drop_entry=0 drop_packet=0 secure_tcp=0; do
		lb sysctl -qw net.ipv4.vs.$set 2>/dev/null
	done
	lb ipvsadm --stop-daemon master 2>/dev/null
	lb ipvsadm --stop-daemon backup 2>/dev/null
	lb ipvsadm --set 10 10 10
	lb ipvsadm -C
}
# Network namespaces, also those without a name. Where each has a file, that tells; else it is as many
# as there is memory for, and an allocator may keep some of that.
spaces() {
	if [[ -d /sys/kernel/debug/ref_tracker ]]; then
		find /sys/kernel/debug/ref_tracker -name 'netns-*-refcnt' | wc -l
	else
		give_back
		echo $(($(objects net_namespace) / 8))
	fi
}
who() {
	local file
	for file in /sys/kernel/debug/ref_tracker/netns-*; do sed "s/^/# ${file##*/}: /" "$file"; done
}
alone() { (($(spaces) <= spaces)); }
are_alone() { wait_for 300 alone || { who; return 1; }; }

echo "# seed $SEED, $TIME seconds"
spaces=$(spaces)
# Once for a moment: what is made once and kept is there when memory is measured.
world
torture $((TIME > 300 ? 30 : TIME / 5)) "$SEED warm"
leave
no_boxes
are_alone
give_back
held=$(objects ip_vs_conn)
trap - EXIT
rm -rf "$WORK"
WORK=$(mktemp -d)
memory_map >"$WORK/memory"
memory=$(kernel_memory)
world
ok "torture, seed $SEED: nothing amiss" torture "$TIME" "$SEED"
figures=$(figures)
leave
# Segments that IPVS has counted, in all.
packets=$((16#$(lb awk 'NR == 3 { print $2 }' /proc/net/ip_vs_stats)))
# An hour on the slowest kernel has 3 actions, 4 connections to check and 114 packets in a second.
between "actions" "$(jq '[.actions[]] | add // 0' <<<"$figures")" $((TIME / 2)) 1000000000
between "packets that IPVS counted" "$packets" $((TIME * 10)) 1000000000
checked=$(jq '."connections checked" // 0' <<<"$figures")
between "new connections checked" "$checked" $((TIME / 2)) 1000000000
# Some servers are drained, services empty, and memory fails.
between "and answered" "$(jq '."connections answered" // 0' <<<"$figures")" $((checked / 4 + 1)) "$checked"
service $SVC
result=$(short 60 --first 1000)
eq "after all of it: it balances" "$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[60,4]"
tail -qn 3 "$WORK"/rs?/log | sed 's/^/# /'
lb ipvsadm -C
if ((TIME >= 300)); then
	# Those of SCTP live for 15 minutes, and there is no setting for it.
	others() { [[ $(lb awk 'NR > 1 && $1 != "SCTP"' /proc/net/ip_vs_conn | wc -l) == 0 ]]; }
	ok "every entry fades" wait_for 300 others
	others || lb awk 'NR > 1 { n[$1 " " $8]++ } END { for (what in n) print "# left: " n[what] " " what }' \
		/proc/net/ip_vs_conn
fi
left=$(entries)
no_boxes
ok "no namespace is left" are_alone
# They are freed after a grace period.
few_objects() {
	give_back
	(($(objects ip_vs_conn) <= held + 64))
}
wait_for 60 few_objects || true
between "no entry is left in memory" "$(objects ip_vs_conn)" 0 $((held + 64))
grown=$(($(kernel_memory) - memory))
between "memory is given back: $grown KiB" "$grown" -1000000 "$TOLERANCE"
((grown <= TOLERANCE / 2)) || memory_growth "$WORK/memory"
eq "nobody holds the module" "$(cat /sys/module/ip_vs_mhs/refcnt 2>/dev/null || echo 0)" 0
ok "the module goes" wait_for 60 modprobe -r ip_vs_mhs
schedulers=$(awk '$1 ~ /^ip_vs_/ { print $1 }' /proc/modules)
# shellcheck disable=SC2086
ok "and IPVS, whose caches must be empty for it" bash -c 'rmmod $* && rmmod ip_vs' - $schedulers
jq -c --argjson packets "$packets" --argjson left "$left" --argjson grown "$grown" \
	--argjson seconds "$TIME" \
	'. + {packets: $packets, "entries left": $left, "KiB grown": $grown, seconds: $seconds} | {figures: .}' \
	<<<"$figures" | sed 's/^/# /'
