#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Express mode is switched on and off in one namespace by netlink, before there is
# a service and under live connections. Fails when packets go the way they did
# before, when another namespace or the next service is not as was said, when a
# connection notices, or when who lists the hooks meanwhile sees one that is freed
# (on a kernel that checks itself).
#
# Needs: two CPUs

EXPRESS=
. "$(dirname "$0")/../lib.sh"
setup
T=${T:-40}
lb ipvsadm --set "$T" "$T" "$T"
modprobe -q nf_tables
modprobe ip_vs_mhs
tool() { lb ipvsadm-mhs express "$@"; }
SPEC=/host/ynl/netlink/specs/ip_vs_mhs.yaml
raw() { lb python3 /host/ynl/pyynl/cli.py --spec $SPEC --output-json --no-schema --do set-netns --json "$1" 2>&1; }

count_routed
in_ns client nft -f - <<-NFT
	table inet seen {
		chain out {
			type filter hook output priority 0;
			tcp dport 80 counter
		}
	}
NFT
sent() { in_ns client nft -j list table inet seen | jq '[.nftables[].rule.expr // [] | .[].counter.packets // empty] | add'; }
# goes FIRST: how 100 connections go, and how many of their packets by way of routing.
goes() {
	local sent routed result
	sent=$(sent) routed=$(routed)
	result=$(short 100 --first "$1" | jq .answered)
	sent=$(($(sent) - sent)) routed=$(($(routed) - routed))
	if ((routed == 0)); then
		echo "$result none"
	elif ((sent >= 400 && routed >= sent)); then
		echo "$result all"
	else
		echo "$result $routed of $sent"
	fi
}

eq "at first as the load option says" "$(tool)" "express mode is off"
eq "without a service: on" "$(tool on)" "express mode is on"
service $SVC
# The first ones have IPVS find the routes.
short 40 >/dev/null
nap 3
eq "a service that comes later: nothing is routed" "$(goes 1000)" "100 none"
eq "off: all is routed" "$(tool off) $(goes 2000)" "express mode is off 100 all"
eq "on: nothing is" "$(tool on) $(goes 3000)" "express mode is on 100 none"
eq "on again: the same" "$(tool on) $(goes 4000)" "express mode is on 100 none"
eq "no entry" "$(entries)" 0
eq "JSON" "$(lb ipvsadm-mhs --json express)" '{"express":true}'
eq "the kernel's own tool" "$(raw '{}' | jq -c .)" '{"express":1}'
ok "a number that is none of the two is refused and explained" \
	grep -q "integer out of range" <<<"$(raw '{"express": 2}')"
eq "and changes nothing" "$(tool)" "express mode is on"

ip netns add other
eq "another namespace is as the load option says" "$(in_ns other ipvsadm-mhs express)" "express mode is off"
ip netns del other

lb ipvsadm -D -t $SVC
service $SVC
short 40 >/dev/null
nap 3
eq "the service is made anew: still on" "$(tool) $(goes 5000)" "express mode is on 100 none"

start_long 60 --first 6000
for _ in $(seq 20); do
	tool off >/dev/null
	nap 0.2
	tool on >/dev/null
	nap 0.2
done
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 3
tool off >/dev/null
eq "switched 40 times, and while slots move: no connection breaks" "$(long_status .broken)" 0
stop_long

modprobe -q nfnetlink_hook
# Where nothing would tell of memory that is freed, a few times will do.
[[ -e /sys/kernel/debug/kmemleak ]] && HOOKS_TIME=${HOOKS_TIME:-20}
result=$(lb python3 "$HERE/hooks.py" "${HOOKS_TIME:-3}")
echo "# $result"
eq "switched all the time while the hooks are listed: each is done" "$(jq -c .amiss <<<"$result")" "[]"
ok "and the hook was seen" test "$(jq .ours <<<"$result")" -gt 0

setpriv() { lb setpriv --bounding-set -net_admin --inh-caps -net_admin ipvsadm-mhs express "$@" 2>/dev/null; }
setpriv on
eq "without CAP_NET_ADMIN: refused" "$? $(tool)" "4 express mode is off"

tool on >/dev/null
lb ipvsadm -C
ok "the module goes" wait_for 60 rmmod ip_vs_mhs 2>/dev/null
modprobe ip_vs_mhs
eq "and comes back: what was said went with it" "$(tool)" "express mode is off"
