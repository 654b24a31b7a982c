#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What ipvsadm-mhs plan says of a change, against the kernel's tables once the
# change is made: every slot of the new table, and how many flows get an entry.
# Fails when the two compute anything differently, or plan changes anything.

. "$(dirname "$0")/../lib.sh"
modprobe ip_vs
modprobe ip_vs_mhs table_size=4093 balance=7 hash_key=000102030405060708090a0b0c0d0e0f
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
mhs() { lb ipvsadm-mhs "$@"; }

# The kernel's new table.
table() {
	mhs slots --json "$1" | jq -c '.servers as $s | [.slots[][2] | if . == null then null else
		$s[.] | if (.address | contains(":")) then "[\(.address)]:\(.port)" else "\(.address):\(.port)" end end]'
}

# as_planned SERVICE COMMAND...: plans it, does it, and compares.
as_planned() {
	local svc=$1 plan before after
	shift
	before=$(lb ipvsadm-save -n)
	plan=$(mhs plan --table --json "$@" | jq -c '.plans[0]')
	eq "$*: the plan changes nothing" "$(lb ipvsadm-save -n)" "$before"
	before=$(table "$svc")
	mhs "$@"
	settle
	after=$(table "$svc")
	eq "$*: every slot is as planned" "$(md5sum <<<"$after")" "$(jq -c .table <<<"$plan" | md5sum)"
	eq "$*: so many moved" "$(jq -n --argjson a "$before" --argjson b "$after" \
		'[$a, $b] | transpose | map(select(.[0] != .[1])) | length')" "$(jq .moved <<<"$plan")"
	eq "$*: the servers' slots" \
		"$(mhs show --json "$svc" | jq -c '[.servers[] | select(.state != "grace") | .slots_new]')" \
		"$(jq -c '[.servers[] | select(.weight_after != null) | .slots_after]' <<<"$plan")"
}

for svc in $SVC "$SVC6"; do
	net=10.0.0.1 end=
	[[ $svc == \[* ]] && net=[fd00::1 end=]
	mhs add -t "$svc"
	as_planned "$svc" add -t "$svc" -r "${net}1$end" -g -w 2
	as_planned "$svc" add -t "$svc" -r "${net}2$end" -g
	as_planned "$svc" add -t "$svc" -r "${net}3$end" -g -w 100
	as_planned "$svc" edit -t "$svc" -r "${net}3$end" -w 3
	as_planned "$svc" add -t "$svc" -r "${net}4$end" -g
	as_planned "$svc" drain "${net}1$end" -t "$svc"
	as_planned "$svc" edit -t "$svc" -r "${net}1$end" -w 1
	as_planned "$svc" delete -t "$svc" -r "${net}2$end"
	as_planned "$svc" replace -t "$svc" "${net}3$end" "${net}2$end"
	as_planned "$svc" delete -t "$svc" -r "${net}1$end"
done

# How many flows get an entry. A third of the slots move, and 300 flows are dealt out by a hash:
# 4 standard deviations are 33.
mhs delete -t $SVC
service $SVC
start_long 300
plan=$(mhs plan --json drain 10.0.0.14 -t $SVC | jq .plans[0])
mhs drain 10.0.0.14 -t $SVC
eq "pinned: no connection breaks" "$(long_status .broken)" 0
expected=$(jq '.pinned_share * 300 | round' <<<"$plan")
between "pinned: as many of 300 flows as planned, $expected" "$(entries)" $((expected - 33)) $((expected + 33))
eq "pinned: no slot is unstable that was not planned" \
	"$(($(mhs show --json $SVC | jq .unstable) <= $(jq .unstable_after <<<"$plan")))" 1
unstable=$(mhs show --json $SVC | jq .unstable)
plan=$(mhs plan --json edit -t $SVC -r 10.0.0.14 -w 1 | jq .plans[0])
eq "back: the plan knows what is unstable" "$(jq .unstable_before <<<"$plan")" "$unstable"
mhs edit -t $SVC -r 10.0.0.14 -w 1
settle
eq "back: these slots are stable again" \
	"$(mhs slots --unstable --json $SVC | jq '[.servers as $s | .slots[] | select($s[.[1]].address == "10.0.0.14")] | length')" 0
stop_long

# refused STATUS PATTERN ARGUMENTS...
refused() {
	local status=$1 pattern=$2 said rc=0
	shift 2
	said=$(mhs plan "$@" 2>&1) || rc=$?
	eq "plan $*: status" $rc "$status"
	ok "plan $*: says '$pattern'" grep -qe "$pattern" <<<"$said"
}
refused 2 'only a change of a server' delete -t $SVC
refused 6 'no service' add -t 10.0.0.9:80 -r 10.0.0.11
refused 6 'has no server' delete -t $SVC -r 10.0.0.99
refused 7 'is there already' add -t $SVC -r 10.0.0.11
refused 6 'no service has the server' drain 10.0.0.99
