#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Servers come and go under live connections: none breaks, few entries are made,
# and after the session timeout there are none any more. Fails when a slot
# forgets its old server, when a deleted server gets no grace, or when the timer
# does not merge.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
service $SVC

start_long 60
eq "60 live connections, no entry" "$(long_status .broken) $(entries)" "0 0"

# Server 4 is drained, so its live connections are pinned to it.
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
eq "drain: no connection breaks" "$(long_status .broken)" 0
between "drain: connections of that server are pinned, and not all" "$(entries)" 1 45
eq "drain: and IPVS knows them as established" \
	"$(lb ipvsadm -Lnc | awk '$1 == "TCP" { print $3 }' | sort -u)" ESTABLISHED
# One that has nothing more to say may still wait for an answer.
flows >"$WORK/before"
stray 60 --flags FA >/dev/null
settle
between "drain: half of a connection that ends is pinned, too" "$(new_flows "$WORK/before" | wc -l)" 1 59
eq "drain: for as long as the other half may go on" \
	"$(lb ipvsadm -Lnc | awk '$1 == "TCP" && $3 != "ESTABLISHED" { print $3 }' | sort -u)" FIN_WAIT
result=$(short 60 --first 1000)
eq "drain: new connections go elsewhere" "$(jq '.answered - (.servers.rs4 // 0)' <<<"$result")" 60

# It comes back: its slots are stable again at once.
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 1
eq "back: no connection breaks" "$(long_status .broken)" 0
# That there are pins in a slot, of the same client, is no reason for more.
flows >"$WORK/before"
short 60 >/dev/null
eq "back: new connections make no entry" "$(new_flows "$WORK/before" | wc -l)" 0

# What is left of a flow does not stand for the next one of the same port, should the server be drained again.
half_closed() { lb ipvsadm -Lnc | grep -c FIN_WAIT; }
ok "back: there are entries of flows that are over" test "$(half_closed)" -ge 1
stray 60 --flags S >/dev/null
none_half_closed() { [[ $(half_closed) == 0 ]]; }
ok "back: a port again: the entry of the flow before ends" wait_for 5 none_half_closed

# Server 3 is deleted: grace.
on3=$(long_status .servers.rs3)
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
eq "delete: no connection breaks" "$(long_status .broken)" 0
eq "delete: they stay where they are" "$(long_status .servers.rs3)" "$on3"
# IPVS would drop their packets if they had entries, and so would a backup.
eq "delete: and none has an entry" \
	"$(lb ipvsadm -Lnc | awk '$4 ~ /^10\.1\.0\./ && $6 == "10.0.0.13:80"' | wc -l)" 0
result=$(short 60 --first 3000)
eq "delete: it gets no new connection" "$(jq '.answered - (.servers.rs3 // 0)' <<<"$result")" 60

# The end of grace: its connections, and only those, end.
grace_over() { [[ $(long_status '.servers.rs3 // 0') == 0 ]]; }
ok "after grace its connections end" wait_for $((T * 6)) grace_over
eq "and no other" "$(long_status .broken)" "$on3"

# Merged: no new entry, and the pins fade.
flows >"$WORK/before"
result=$(short 60)
eq "stable again: new connections are answered" "$(jq .answered <<<"$result")" 60
eq "stable again: they make no entry" "$(new_flows "$WORK/before" | wc -l)" 0
stop_long

# Connections that begin while their slots move are pinned to the new server. After the merge the
# slots say the same.
short 60 --first 5000 >/dev/null
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 0
start_long 60 --first 5000
between "new connections of moving slots have entries" "$(entries_from 5000 60)" 3 57
ok "every entry fades, of live connections too" wait_for $((T * 10)) no_entries
eq "and they live on" "$(long_status .broken) $(entries)" "0 0"
stop_long

# Drained, and then deleted: connections that have an entry get their grace, too, and no more.
start_long 40 --first 6000
on1=$(long_status .servers.rs1)
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
eq "drained: no connection breaks" "$(long_status .broken)" 0
between "drained: they have entries" "$(entries_from 6000 40)" 1 39
lb ipvsadm -d -t $SVC -r 10.0.0.11:80
eq "drained and deleted: no connection breaks" "$(long_status .broken)" 0
drain_over() { [[ $(long_status '.servers.rs1 // 0') == 0 ]]; }
ok "drained and deleted: after grace they end" wait_for $((T * 4)) drain_over
eq "drained and deleted: and no other" "$(long_status .broken)" "$on1"
stop_long
