#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The everyday commands of ipvsadm: save and restore, edit, zero, clear; and the
# events of a server: threshold, expire_nodest_conn, added again. Fails when one
# of them changes more than it says.

# In the end lb is another balancer.
# shellcheck disable=SC2218
. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
service $SVC -b flag-1,flag-2
service "$SVC6"
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 7 -x 100 -y 50

lb ipvsadm-save -n >"$WORK/saved"
first=$(short 40 --clients | jq -cS .clients)
lb ipvsadm -C
eq "cleared" "$(lb ipvsadm-save -n | wc -l)" 0
lb ipvsadm-restore <"$WORK/saved"
eq "restored as saved" "$(lb ipvsadm-save -n | sort)" "$(sort "$WORK/saved")"
ok "with its flags" grep -q 'flag-1,flag-2\|mh-fallback,mh-port' <(lb ipvsadm -Ln)
lb ipvsadm -E -t $SVC -s $SCHED
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 1
settle

short 40 >/dev/null
counted() { (($(lb ipvsadm -Ln --stats --exact | awk '/^TCP/ { n += $3 } END { print n }') >= 40)); }
ok "counted" wait_for 10 counted
# IPVS looks at its counters every two seconds, and zeroes what it saw last: it may have seen all
# connections begin, and not yet how they ended.
nap 3
lb ipvsadm -Z
nap 3
eq "zeroed" "$(lb ipvsadm -Ln --stats --exact | awk '/^TCP/ { n += $3 + $4 } END { print n }')" 0

# Added again within its grace: its slots are as they were.
before=$(short 60 --clients --first 1000 | jq -cS .clients)
start_long 40 --first 2000
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
eq "deleted: no connection breaks" "$(long_status .broken)" 0
lb ipvsadm -a -t $SVC -r 10.0.0.13:80 -g
settle
eq "added again: no connection breaks" "$(long_status .broken)" 0
n=$(entries)
eq "added again: the same table" "$(short 60 --clients --first 1000 | jq -cS .clients)" "$before"
eq "added again: no new entry" "$(entries)" "$n"

# Deleted with expire_nodest_conn: no grace.
on4=$(long_status .servers.rs4)
lb sysctl -qw net.ipv4.vs.expire_nodest_conn=1
# A grace would be one that is noticed.
lb ipvsadm --set 300 300 300
lb ipvsadm -d -t $SVC -r 10.0.0.14:80
ended() { [[ $(long_status ".servers.$1 // 0") == 0 ]]; }
ok "expire_nodest_conn: its connections end at once" wait_for 60 ended rs4
eq "and no other" "$(long_status .broken)" "$on4"
stop_long
# Nor for flows of a time when it was reached in another way.
start_long 40 --first 3000
on1=$(long_status .servers.rs1)
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -m
eq "masqueraded from now on: no connection breaks" "$(long_status .broken)" 0
lb ipvsadm -d -t $SVC -r 10.0.0.11:80
ok "expire_nodest_conn, and masqueraded at last: its connections end at once" wait_for 60 ended rs1
eq "and no other of these" "$(long_status .broken)" "$on1"
stop_long
lb ipvsadm --set "$T" "$T" "$T"

# The upper threshold counts entries. So those of a drained server count.
lb ipvsadm -C
lb sysctl -qw net.ipv4.vs.expire_nodest_conn=0 net.ipv4.vs.conntrack=0
for flags in "" "-b flag-1"; do
	# shellcheck disable=SC2086
	lb ipvsadm -A -t $SVC -s $SCHED $flags
	lb ipvsadm -a -t $SVC -r 10.0.0.11:80 -g
	lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -g
	settle
	# Connections that go on, with entries: handover makes them.
	lb ipvsadm -E -t $SVC -s $SCHED -b flag-3
	start_long 30 --first 3000
	lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -x 2 -y 1
	# shellcheck disable=SC2086
	lb ipvsadm -E -t $SVC -s $SCHED $flags
	# IPVS looks at the threshold when an entry comes or goes.
	in_ns client python3 "$HERE/load.py" short 4 --first 4000 >/dev/null
	result=$(short 40 --first 5000 --timeout 5)
	if [[ $flags ]]; then
		eq "overload, flag-1: new connections go to the other" \
			"$(jq -c .servers <<<"$result")" '{"rs2":40}'
	else
		between "overload: new connections of that server are refused" \
			"$(jq .failed <<<"$result")" 8 32
		eq "overload: and only those" "$(jq '.servers.rs1 // 0' <<<"$result")" 0
	fi
	eq "overload: no live connection breaks" "$(long_status .broken)" 0
	stop_long
	lb ipvsadm -C
done

# What went elsewhere stays there, where nothing else has the service look for entries: the server is
# overloaded by connections of moving slots, and refuses those of slots that are stable. On another
# balancer: on this one entries of before may be looked for.
plug lb2 10.0.0.3 fd00::3
ip -n lb2 route add 10.1.0.0/16 via 10.0.0.2
ip -n lb addr del $VIP/32 dev eth0
ip -n lb2 addr add $VIP/32 dev eth0
ip -n client neigh flush all
lb() { in_ns lb2 "$@"; }
lb ipvsadm --set 60 60 60
lb ipvsadm -A -t $SVC -s $SCHED -b flag-1
lb ipvsadm -a -t $SVC -r 10.0.0.11:80 -g
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -g -w 2
settle
short 60 --first 6000 >/dev/null
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 4 -x 2 -y 1
start_long 30 --first 6000
between "overloaded by some: connections with an entry" "$(entries_from 6000 30)" 2 28
eq "overloaded by some: new connections go to the other, and stay" \
	"$(short 40 --first 7000 | jq -c .servers)" '{"rs2":40}'
eq "overloaded by some: no live connection breaks" "$(long_status .broken)" 0
stop_long
