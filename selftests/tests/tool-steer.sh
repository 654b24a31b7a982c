#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# drain, replace and handover of ipvsadm-mhs under live connections: none breaks,
# and what is waited for has come when the command ends. Fails when drain counts
# entries only and not the slots whose flows have none yet, or handover does not
# wait long enough.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-15}
lb ipvsadm --set "$T" "$T" "$T"
mhs() { lb ipvsadm-mhs "$@"; }
weight() { lb ipvsadm -Ln -t $SVC | awk -v server="$1:80" '$2 == server { print $4 }'; }
service $SVC

# Nobody is there: nothing to wait for.
ok "drain --wait: nobody is there" mhs drain 10.0.0.14 --wait --timeout 10
eq "drain: weight 0, the method as it was" "$(lb ipvsadm-save -n | grep 10.0.0.14)" \
	"-a -t $SVC -r 10.0.0.14:80 -g -w 0"
mhs edit -t $SVC -r 10.0.0.14 -w 1
settle

# 40 connections that are silent when it begins: all have just spoken, and do so again three seconds later; the
# last answer to each is acknowledged.
start_long 40 --pause 3
on4=$(long_status '.servers.rs4')
acknowledged() {
	for n in 1 2 3 4; do
		! ip netns exec "rs$n" ss -Htin state established | grep -q unacked || return 1
	done
}
ok "the answers are acknowledged" wait_for 10 acknowledged
rc=0
mhs drain 10.0.0.14 --wait --timeout 2 --json >"$WORK/drain" 2>"$WORK/error" || rc=$?
eq "drain --timeout: the time is over" $rc 8
ok "drain: says so" grep -q 'flows not seen yet\|entries' "$WORK/error"
eq "drain: silent flows have no entry, but slots" \
	"$(head -n 1 "$WORK/drain" | jq '(.entries == 0) and (.slots > 0)')" true
eq "drain: no connection breaks" "$(long_status .broken)" 0
left() { tail -n 1 "$WORK/drain" | jq "$1"; }
# Without the pipe that start_long opened: its connections end when that is closed.
mhs drain 10.0.0.14 --wait --json >"$WORK/drain" 9>&- &
waiting=$!
one_line drain 10.0.0.14 --wait --timeout 10 --json 9>&- &
unread=$!
entered() { [[ $(left .entries) == "$on4" ]]; }
ok "drain: an entry for each of its $on4 connections" wait_for 10 entered
merged() {
	long_status .broken >/dev/null
	[[ $(left .slots) == 0 ]]
}
ok "drain: its slots are merged" wait_for $((T * 4)) merged
rc=0
wait $unread || rc=$?
eq "drain: nobody reads on: the time is over all the same" $rc 8
ok "drain: waits as long as they live" kill -0 $waiting
eq "drain: they live" "$(long_status .broken)" 0
stop_long
rc=0
wait $waiting || rc=$?
eq "drain: ends when the last is gone" "$rc $(left .entries)" "0 0"

# A new server for an old one.
mhs edit -t $SVC -r 10.0.0.14 -w 1
mhs delete -t $SVC -r 10.0.0.12
ok "no entry is left" wait_for $((T * 10)) no_entries
settle
start_long 40
on1=$(long_status '.servers.rs1')
one_line replace 10.0.0.11 10.0.0.12 --wait --delete 9>&- &
waiting=$!
replaced() { [[ $(weight 10.0.0.11) == 0 && $(weight 10.0.0.12) == 1 ]]; }
ok "replace: the new one in the place of the old one" wait_for 5 replaced
settle
result=$(short 60 --first 3000)
eq "replace: it gets connections, the old one none" \
	"$(jq '.answered, (.servers.rs2 > 0), (.servers.rs1 // 0)' <<<"$result" | xargs)" "60 true 0"
eq "replace: no connection breaks" "$(long_status '.broken, .servers.rs1' | xargs)" "0 $on1"
ok "replace: the old one is there while it has flows" test "$(weight 10.0.0.11)" = 0
ok "replace: it has told somebody" test -s "$WORK/line"
stop_long
ok "replace: ends when the last is gone, though nobody reads on" wait $waiting
eq "replace: and the old one is deleted" "$(weight 10.0.0.11)" ""

# Another scheduler, and back.
ok "no entry is left" wait_for $((T * 10)) no_entries
start_long 40 --first 4000
mhs handover --json $SVC >"$WORK/handover" 9>&- &
waiting=$!
flag() { lb ipvsadm-save -n | grep -q -- "-A -t $SVC -s $SCHED -b flag-3"; }
ok "handover: flag-3 first" wait_for 5 flag
begin=$SECONDS
eq "handover: no connection breaks" "$(long_status .broken)" 0
eq "handover: each has an entry" "$(entries)" 40
keep_on() { long_status .broken >/dev/null; ! kill -0 $waiting 2>/dev/null; }
ok "handover: comes to its end" wait_for $((T * 4)) keep_on
ok "handover: not before a session timeout" test $((SECONDS - begin)) -ge $((T - 1))
eq "handover: scheduled by mh, without flag-3" "$(lb ipvsadm-save -n | grep -- -A)" "-A -t $SVC -s mh"
eq "handover: last words" "$(tail -n 1 "$WORK/handover" | jq -c '[.handover, .scheduler]')" '["done","mh"]'
eq "handover: no connection breaks with mh" "$(long_status .broken)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
eq "handover: nor with a change" "$(long_status .broken)" 0
stop_long

# Somebody else deletes what is waited for. The sessions of before are over soon.
lb ipvsadm -C
lb ipvsadm --set 4 4 4
service $SVC
start_long 40 --first 5000
drain_waits() {
	mhs drain "$1" --wait >/dev/null 9>&- &
	waiting=$!
	drained() { [[ $(weight "$1") == 0 ]]; }
	# Entries are made while its flows go on.
	wait_for 5 drained "$1" && long_status .broken >/dev/null && sleep 1 && kill -0 $waiting
}
ok "drain: waits for a server" drain_waits 10.0.0.13
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
ok "drain: somebody else deletes it: comes to its end" wait_for 30 keep_on
ok "drain: with status 0" wait $waiting
ok "drain: waits for another one" drain_waits 10.0.0.14
lb ipvsadm -D -t $SVC
ok "drain: somebody else deletes the service: ends with status 0" wait $waiting
stop_long

# refused STATUS PATTERN ARGUMENTS...
refused() {
	local status=$1 pattern=$2 said rc=0
	shift 2
	said=$(mhs "$@" 2>&1) || rc=$?
	eq "$*: status" $rc "$status"
	ok "$*: says '$pattern'" grep -qe "$pattern" <<<"$said"
}
mhs add -t $SVC -s mh
refused 6 'is scheduled by mh, not by mhs' handover $SVC rr
mhs edit -t $SVC -s mhs
refused 2 'is scheduled by mhs already' handover $SVC mhs
refused 6 'no service' handover 10.0.0.9:80

# A scheduler that does not exist is known at the beginning.
refused 6 'no scheduler xyzzy' handover $SVC xyzzy
eq "a handover that cannot be changes nothing" "$(lb ipvsadm-save -n | grep -- -A)" "-A -t $SVC -s mhs"

# Two servers of a service would become the same.
mhs add -f 7
for port in 80 81; do mhs add -f 7 -r 10.0.0.11:$port; done
before=$(lb ipvsadm-save -n)
refused 2 'cannot both become 10.0.0.20:80' replace 10.0.0.11 10.0.0.20:80
eq "a replacement that cannot be changes nothing" "$(lb ipvsadm-save -n)" "$before"
