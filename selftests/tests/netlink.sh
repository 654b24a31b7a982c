#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the netlink family tells is what happened, and what ipvsadm and
# /proc/net/ip_vs_conn say. Everything is asked with the kernel's own tool, which
# knows nothing but the specification. Fails when a table, a state, a counter or
# an event is not what the test just did.

. "$(dirname "$0")/../lib.sh"
YNL=/host/ynl
SPEC=$YNL/netlink/specs/ip_vs_mhs.yaml
cli() { python3 $YNL/pyynl/cli.py --spec $SPEC --output-json --no-schema "$@"; }
# ynl OPTIONS...: the same in lb, by one process for all commands.
ynl() {
	local status size
	{ printf '%s\x1f' "$@" && echo; } >&5
	read -r status size <&6
	head -c "$size" <&6
	return "$status"
}
listen() {
	ip netns exec lb python3 -u $YNL/pyynl/cli.py --spec $SPEC --output-json --no-schema \
		--subscribe events --duration "$1" >"$WORK/events" &
	events=$!
	# As long as it takes to begin.
	wait_for 60 lb grep -qw "$events" /proc/net/netlink
}
# key ADDRESS PROTOCOL PORT: how a service is asked for.
key() {
	local family=inet
	[[ $1 == *:* ]] && family=inet6
	echo "{\"service\":{\"family\":\"$family\",\"protocol\":\"$2\",\"address\":\"$1\",\"port\":$3}}"
}
KEY=$(key $VIP tcp 80)
# ask FILTER [KEY], dests FILTER [KEY], slots FILTER [MORE]: the service, its servers, its slots.
ask() { ynl --do get-service --json "${2:-$KEY}" | jq -c "$1"; }
dests() { ynl --dump get-dest --json "${2:-$KEY}" | jq -c "$1"; }
slots() { ynl --dump get-slots --json "$(jq -c "${2:-.}" <<<"$KEY")" | jq -c "$1"; }
count() { ask ".counters[\"$1\"]" "${2:-$KEY}"; }
# What IPVS has counted for the service: new flows, packets, bytes.
stats() { lb ipvsadm -Ln --stats --exact | awk '$1 == "TCP" { print $3, $4, $6; exit }'; }

ok "the specification follows the kernel's schema" python3 $YNL/pyynl/cli.py --spec $SPEC --validate
modprobe -r ip_vs_mhs 2>/dev/null
said=$(cli --dump get-service 2>&1)
ok "without the module: no family" grep -q "Family 'IPVS_MHS' not supported" <<<"$said"
setup
T=${T:-45}
lb ipvsadm --set "$T" "$T" "$T"
mkfifo "$WORK/ynl.in" "$WORK/ynl.out"
exec 5<>"$WORK/ynl.in" 6<>"$WORK/ynl.out"
ip netns exec lb python3 "$HERE/ynl.py" $YNL/pyynl --spec $SPEC --output-json --no-schema <&5 >&6 5<&- 6<&- &

# A service from the beginning.
lb ipvsadm -A -t $SVC -s $SCHED
asked() { ynl --dump get-service 2>/dev/null | jq -e 'length == 1' >/dev/null; }
ok "the family comes with the module" wait_for 20 asked
eq "no server yet: all slots stable, not stateless" \
	"$(ask '[.servers, .stable, .unstable, .stateless, ."next-merge"]')" '[0,16381,0,null,null]'
eq "no server yet: none is shown" "$(dests length)" 0
params=/sys/module/ip_vs_mhs/parameters
eq "options of the module" "$(ask '[."table-size", .balance, (."hash-key" | gsub(" "; "")), .scheduler]')" \
	"[$(cat $params/table_size),$(cat $params/balance),\"$(cat $params/hash_key)\",\"$(cat $params/sched_name)\"]"
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g -w $((n % 2 + 1)); done
settle
settled() { [[ $(ask .unstable) == 0 ]]; }
ok "four servers without traffic: all slots become stable at once" wait_for 10 settled
eq "four servers, stateless, session timeout of ipvsadm --set" \
	"$(ask '[.servers, .stateless, ."session-timeout"]')" "[4,true,${T}000]"
eq "servers as in ipvsadm" \
	"$(dests '.[] | [.address, .port, .weight, .method, .state]' | sort)" \
	"$(lb ipvsadm -Ln | awk '$1 == "->" && $2 ~ /^10/ {
		split($2, a, ":"); print "[\"" a[1] "\"," a[2] "," $4 ",\"direct\",\"live\"]" }' | sort)"
eq "their slots, old and new, are all there are" \
	"$(dests '[([.[]."old-slots"] | add), ([.[]."new-slots"] | add)]')" '[16381,16381]'
eq "slots: each once, in order" "$(slots '[.[].slot[]] == [range(16381)]')" true
eq "slots: as many of each server as it has" \
	"$(slots '[.[].new[]] | group_by(.) | map([.[0], length])')" \
	"$(dests 'map([.index, ."new-slots"]) | sort')"
eq "slots: stable, so none has time left" "$(slots '[.[]."time-left"[]] | add')" 0
eq "unstable slots: none" "$(slots length '."unstable-only" = true')" 0
one=$(dests '[.[].generation] | unique')
eq "one generation" "[$(ask .generation)] $(slots '[.[].generation] | unique')" "$one $one"

# Packets.
result=$(short 100)
same() {
	read -r conns packets bytes < <(stats)
	[[ $(ask '.counters | [.conns, .packets, .bytes]') == "[$conns,$packets,$bytes]" ]]
}
ok "100 connections: new flows, packets and bytes as ipvsadm counts" wait_for 20 same
eq "100 connections: 100 new flows" "$(count conns)" 100
eq "packets and bytes: the sum over servers" \
	"$(dests '[([.[].packets] | add), ([.[].bytes] | add)]')" "$(ask '.counters | [.packets, .bytes]')"
total='.counters | to_entries | map(.value)'
eq "every counter: the sum over CPUs" \
	"$(ynl --dump get-counters --json "$KEY" | jq -c "[.[] | $total] | transpose | map(add)")" \
	"$(ask "$total")"
eq "no entry was asked for" "$(ask '.counters | [."pins-new", ."pins-old"]')" '[0,0]'
for n in 1 2 3 4; do
	# A connection is more than a SYN.
	ok "rs$n got packets" test "$(dests ".[] | select(.address == \"10.0.0.1$n\") | .packets")" -gt \
		"$(jq ".servers.rs$n" <<<"$result")"
done

# Their slots are in use from now on.
short 60 --first 3000 >/dev/null
# A drain, with live connections. Events are heard meanwhile.
listen $((T * 4))
start_long 80 --first 1000
heard() { jq -s -c "[.[] | select(.name == \"$1\") | .msg] | $2" "$WORK/events"; }
was=$(ask '.counters | [.remaps, .merges, ."slots-merged"]')
index4=$(dests '.[] | select(.address == "10.0.0.14") | .index')
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
# Slots that nobody used are merged at once: not between two of the questions.
settle
row4=$(dests '.[] | select(.address == "10.0.0.14")')
eq "drain: state and weight" "$(jq -c '[.state, .weight, ."new-slots"]' <<<"$row4")" '["draining",0,0]'
between "drain: time until its slots are merged" "$(jq '."time-left"' <<<"$row4")" 1 $((T * 1000 + 1000))
ok "drain: slots are unstable" test "$(ask .unstable)" -gt 0
between "drain: time until the next merge" "$(ask '."next-merge"')" 1 $((T * 1000 + 1000))
unstable=$(ask .unstable)
eq "drain: stable and unstable are all" "$(ask '.stable + .unstable')" 16381
eq "drain: the unstable slots, by name" "$(slots '[.[].slot[]] | length' '."unstable-only" = true')" "$unstable"
eq "drain: all were of that server, none is" \
	"$(slots "[([.[].old[]] | unique), ([.[].new[]] | index($index4))]" '."unstable-only" = true')" \
	"[[$index4],null]"
eq "drain: the slots of each server, old and new" \
	"$(dests 'map([.index, ."old-slots", ."new-slots"]) | sort')" \
	"$(slots '([.[].old[]] | group_by(.) | map({(.[0] | tostring): length}) | add) as $old
		| ([.[].new[]] | group_by(.) | map({(.[0] | tostring): length}) | add) as $new
		| $old | keys | map([tonumber, $old[.], ($new[.] // 0)]) | sort')"
eq "drain: each has time left" \
	"$(slots "[.[].\"time-left\"[]] | min > 0 and max <= ${T}000 + 1000" '."unstable-only" = true')" true
eq "drain: no connection breaks" "$(long_status .broken)" 0
settle
between "drain: pins to the old server, and not all" "$(count pins-old)" 1 60
eq "drain: as many as there are entries" "$(ask '.counters | ."pins-new" + ."pins-old"')" "$(entries)"
pinned=$(ask '.counters | ."pins-new" + ."pins-old"')
short 60 --first 3000 >/dev/null
made=$(($(entries) - pinned))
between "new flows of moving slots" "$made" 1 59
eq "new flows of moving slots are pinned to the new server" "$(count pins-new)" "$made"
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
row3=$(dests '.[] | select(.address == "10.0.0.13")')
eq "delete: grace" "$(jq -c '[.state, ."new-slots"]' <<<"$row3")" '["grace",0]'
between "delete: time left" "$(jq '."time-left"' <<<"$row3")" 1 $((T * 1000 + 1000))
eq "delete: shown, but not counted as a server" "$(dests length) $(ask .servers)" "4 3"
merged() { settled && [[ $(dests length) == 3 ]]; }
ok "after the session timeout: stable, and the deleted server is gone" wait_for $((T * 3)) merged
eq "drained: no slot, no time" \
	"$(dests '.[] | select(.address == "10.0.0.14") | [.state, ."old-slots", ."time-left"]')" \
	'["draining",0,null]'
stop_long
kill $events
eq "events: tables, why each was made" "$(heard remap-ntf 'map(.cause)')" '["update","delete"]'
eq "events: slots that became unstable by the drain, and all of them" \
	"$(heard remap-ntf '.[0] | [."became-unstable" >= .unstable, .unstable >= '"$unstable"']')" '[true,true]'
eq "events: of this service" "$(heard remap-ntf '[.[].service] | unique')" "[$(jq -c .service <<<"$KEY")]"
eq "events: states of servers" \
	"$(heard dest-ntf 'map([.address, .state, .weight])')" \
	'[["10.0.0.14","draining",0],["10.0.0.13","grace",2],["10.0.0.13","gone",2]]'
eq "events: as many tables, merges and merged slots as were counted" \
	"[$(heard remap-ntf length),$(heard merge-ntf 'length, ([.[].merged] | add)' | paste -sd,)]" \
	"$(ask ".counters | [[.remaps, .merges, .\"slots-merged\"], $was] | transpose | map(.[0] - .[1])")"
eq "events: each change has a generation of its own, later than those before" \
	"$(jq -s '[.[].msg.generation] | length > 4 and . == unique' "$WORK/events")" true
eq "events: in the end none is unstable" "$(heard merge-ntf '.[-1] | [.unstable, ."next-merge"]')" '[0,null]'
eq "events: every slot that became unstable was merged or came back" \
	"$(jq -s '[.[].msg | (."became-unstable" // 0) - (."became-stable" // 0) - (.merged // 0)] | add' "$WORK/events")" 0
eq "no failure" "$(count rebuild-failures) $(heard failure-ntf length)" "0 0"

# ICMP errors.
in_ns client python3 "$HERE/icmp.py" 3 1 30
icmp() { [[ $(count icmp-errors) == 30 ]]; }
ok "30 ICMP errors" wait_for 10 icmp

# The table of entries is full. Those of above have faded: all their connections are closed.
ok "no entry is left" wait_for 60 no_entries
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 4
settle
stray 400 --first 4000 >/dev/null
settle
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
lb sysctl -qw net.ipv4.vs.conn_max=4
eq "room for all: nothing went without its entry" "$(count full)" 0
stray 400 --first 4000 >/dev/null
all_taken() { [[ $(entries) == 4 ]]; }
ok "no room: as many entries as there is room for" wait_for 5 all_taken
between "no room: other packets of moving slots went without their entry" "$(count full)" 1 400
lb sysctl -qw net.ipv4.vs.conn_max=1000000

# Nobody to go to.
before=$(count no-server)
for n in 1 2 4; do lb ipvsadm -e -t $SVC -r 10.0.0.1$n:80 -g -w 0; done
settle
short 10 --first 6000 --timeout 3 >/dev/null
between "no server: refused" "$(($(count no-server) - before))" 10 100

# UDP whose server is not live.
for n in 1 2 3 4; do serve "$n" udp $VIP 53; done
lb ipvsadm -A -u $VIP:53 -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -u $VIP:53 -r 10.0.0.1$n:53 -g; done
settle
UDP=$(key $VIP udp 53)
start_long 40 --proto udp --port 53 --first 7000
eq "UDP: nothing moved" "$(count udp-moved "$UDP")" 0
on2=$(long_status .servers.rs2)
lb ipvsadm -d -u $VIP:53 -r 10.0.0.12:53
settle
long_status .broken >/dev/null
between "UDP: moved from the deleted server" "$(count udp-moved "$UDP")" "$on2" $((on2 * 3))
stop_long

# Services of every kind.
lb ipvsadm -C
eq "no service" "$(ynl --dump get-service)" "[]"
service "$SVC6"
lb ipvsadm -A -f 7 -s $SCHED
lb ipvsadm -A -f 8 -6 -s $SCHED
lb ipvsadm -A --sctp-service $VIP:99 -s $SCHED
lb ipvsadm -A -t $VIP:21 -s $SCHED
lb ipvsadm -a -t $VIP:21 -r 10.0.0.11:21 -g
lb ipvsadm -A -t $VIP:443 -s $SCHED -p 60
lb ipvsadm -a -t $VIP:443 -r 10.0.0.11:443 -g
lb ipvsadm -A -t $VIP:81 -s rr
lb ipvsadm -a -t $VIP:443 -r 10.0.0.12:443 -i
lb ipvsadm -a -t $VIP:443 -r 10.0.0.13:8443 -m -w 9
settle
eq "every kind of service, and none of another scheduler" \
	"$(ynl --dump get-service | jq -c '.[].service | [.family, .protocol, .address, .port, .fwmark]')" \
	'["inet6","tcp","fd00::100",80,null]
["inet",null,null,null,7]
["inet6",null,null,null,8]
["inet","sctp","10.0.0.100",99,null]
["inet","tcp","10.0.0.100",21,null]
["inet","tcp","10.0.0.100",443,null]'
eq "by IPv6 address" "$(ask .servers "$(key $VIP6 tcp 80)")" 4
eq "servers with IPv6 addresses" "$(dests '.[0] | [.family, .address]' "$(key $VIP6 tcp 80)")" '["inet6","fd00::11"]'
eq "by mark" "$(ask .service.fwmark '{"service":{"family":"inet6","fwmark":8}}')" 8
eq "FTP is not stateless" "$(ask '[.servers, .stateless]' "$(key $VIP tcp 21)")" '[1,null]'
eq "nor is a persistent service" "$(ask .stateless "$(key $VIP tcp 443)")" null
eq "servers by every method" "$(dests 'map([.method, .port, .weight])' "$(key $VIP tcp 443)")" \
	'[["direct",443,1],["tunnel",443,1],["masq",8443,9]]'
eq "IPv6 is" "$(ask .stateless "$(key $VIP6 tcp 80)")" true
lb sysctl -qw net.ipv4.vs.conntrack=1
eq "but not with conntrack=1" "$(ask .stateless "$(key $VIP6 tcp 80)")" null
lb sysctl -qw net.ipv4.vs.conntrack=0
eq "another namespace has none of them" \
	"$(in_ns client python3 $YNL/pyynl/cli.py --spec $SPEC --output-json --dump get-service)" "[]"

# A table takes so long here that not each change gets one of its own.
lb ipvsadm -C
ok "unload" wait_for 20 rmmod ip_vs_mhs
modprobe ip_vs_mhs table_size=131071
service $SVC
eq "a server that is reached in another way has no new slots in the old one, at once" \
	"$(lb python3 "$HERE/netlink.py" method)" '{"grace": [0]}'

# Under the name of mh, and as another scheduler's service.
lb ipvsadm -C
wait_for 20 rmmod ip_vs_mhs
modprobe ip_vs_mhs sched_name=mh table_size=251
lb ipvsadm -A -t $SVC -s mh
lb ipvsadm -a -t $SVC -r 10.0.0.11:80 -g
wait_for 20 asked
eq "under the name mh" "$(ask '[.scheduler, ."table-size", .servers]')" '["mh",251,1]'
lb ipvsadm -E -t $SVC -s rr
eq "with another scheduler it is not shown" "$(ynl --dump get-service)" "[]"
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -g
lb ipvsadm -E -t $SVC -s mh
eq "adopted: with its servers" "$(ask '[.servers, .counters.remaps]')" '[2,1]'

# Memory fails while a server is added, one allocation later each time, until it is one of ours.
if [[ -e /proc/self/fail-nth ]]; then
	echo N >/sys/kernel/debug/failslab/ignore-gfp-wait
	echo 0 >/sys/kernel/debug/failslab/verbose
	result=$(lb python3 "$HERE/netlink.py" starve)
	echo "# $result"
	between "a server that there was no memory for is counted" "$(count rebuild-failures)" 1 10
	eq "and an event, each, with its cause: add" "$(jq -c '[.heard.failure, .causes]' <<<"$result")" \
		"[$(count rebuild-failures),[1]]"
	ok "a server that was added and not told of: told that an event is lost" \
		jq -e '.untold == [] and .heard.ENOBUFS > 0' <<<"$result"
else
	COUNT=$((COUNT + 1))
	echo "ok $COUNT a server that there is no memory for # SKIP no fault injection in this kernel"
fi
