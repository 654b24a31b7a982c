#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A service that mixes direct-routing and masquerading servers: connections to
# the former have no entry, those to the latter have, and each kind survives that
# servers come and go. Fails when masqueraded flows are sent without an entry, or
# when packets that are routed directly go by a route that was found for others.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"

# Servers 3 and 4 answer through the balancer.
lb sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
	net.ipv4.conf.eth0.send_redirects=0
for n in 3 4; do
	ip -n rs$n addr del $VIP/32 dev lo
	ip -n rs$n route replace 10.1.0.0/16 via 10.0.0.1
done
lb ipvsadm -A -t $SVC -s $SCHED
for n in 1 2; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g; done
for n in 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -m; done
settle

result=$(short 80)
eq "all are answered" "$(jq .answered <<<"$result")" 80
masq=$(jq '.servers.rs3 + .servers.rs4' <<<"$result")
eq "an entry for each masqueraded connection, and no other" "$(entries)" "$masq"

start_long 60 --first 1000
masq=$(long_status '.servers.rs3 + .servers.rs4')
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
eq "direct server drained: no connection breaks" "$(long_status .broken)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -m -w 0
eq "masquerading server drained: no connection breaks" "$(long_status .broken)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 1
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -m -w 1
eq "both back: no connection breaks" "$(long_status .broken)" 0
nap $((T * 3 / 2))
eq "merged: no connection breaks" "$(long_status .broken)" 0
eq "merged: they are where they were" "$(long_status '.servers.rs3 + .servers.rs4')" "$masq"

# A server that masquerades from now on: its flows of before have to reach it still.
on2=$(long_status .servers.rs2)
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -m
settle
# The server is two members now, of the same name.
moving() {
	lb ipvsadm-mhs slots --unstable --json $SVC |
		jq '.servers as $s | [.slots[] | select($s[.[2]].address == "10.0.0.12" and .[1] != .[2])] | length'
}
between "another method: slots of its flows are unstable, though between two of the same name" "$(moving)" 1 60
eq "another method: metrics has no labels twice" \
	"$(lb ipvsadm-mhs metrics | sed -n '/^#/! s/ [^ ]*$//p' | sort | uniq -d)" ""
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g
settle
eq "another method and back: it is the same one again, and its slots are stable" "$(moving)" 0
eq "another method and back: no connection breaks" "$(long_status .broken) $(long_status .servers.rs2)" "0 $on2"
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 0
nap $((T * 3 / 2))
eq "another method and back, then drained: they go on for as long as they speak" \
	"$(long_status .broken) $(long_status .servers.rs2)" "0 $on2"
stop_long

# Server 2 has flows of both kinds, since those of before go on. IPVS keeps one route for them, found
# for whoever comes first; whenever routes change it finds another.
ip -n rs2 route add 10.1.0.0/16 via 10.0.0.2 table 7
ip -n rs2 rule add from $VIP lookup 7
ip -n rs2 rule add from 10.0.0.101 lookup 7
ip -n rs2 addr add 10.0.0.101/32 dev lo
ip -n lb addr add 10.0.0.101/32 dev eth0
ip -n rs2 route replace 10.1.0.0/16 via 10.0.0.1
# on_routes FIRST [OPTIONS]: how many of 5 times 8 new connections are answered, each after a change of
# routes.
on_routes() {
	local n answered=0
	for n in 1 2 3 4 5; do
		ip -n lb route add blackhole 192.0.2.$n
		nap 0.3
		answered=$((answered + $(short 8 --first $(($1 + 8 * n)) --timeout 4 "${@:2}" | jq .answered)))
	done
	ip -n lb route flush type blackhole
	echo $answered
}
lb ipvsadm -C
lb ipvsadm -A -t $SVC -s $SCHED
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -m
settle
start_long 20 --first 2000 --pause 0.02
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g
eq "masqueraded before, routed directly now: new connections are answered" "$(on_routes 3000)" 40
eq "masqueraded before: those connections go on" "$(long_status .broken)" 0
stop_long
# Deleted soon after the change: what has come since is sent on, for a session timeout.
lb ipvsadm -C
lb ipvsadm -A -t $SVC -s $SCHED
lb ipvsadm -a -t $SVC -r 10.0.0.11:80 -g
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -m
settle
short 60 --first 9000 >/dev/null
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g
start_long 60 --first 9000
on2=$(long_status .servers.rs2)
lb ipvsadm -d -t $SVC -r 10.0.0.12:80
eq "masqueraded before, routed directly, deleted: no connection breaks" \
	"$(long_status '.broken, .servers.rs2' | xargs)" "0 $on2"
stop_long
lb ipvsadm -C
lb ipvsadm -A -t $SVC -s rr
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -m
start_long 20 --first 6000 --pause 0.02
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g
lb ipvsadm -E -t $SVC -s $SCHED
settle
eq "masqueraded by another scheduler: new connections are answered" "$(on_routes 7000)" 40
eq "masqueraded by another scheduler: those connections go on" "$(long_status .broken)" 0
stop_long
# Another service: to this server there is no entry.
lb ipvsadm -A -t 10.0.0.101:80 -s $SCHED
lb ipvsadm -a -t 10.0.0.101:80 -r 10.0.0.12:80 -g
settle
start_long 20 --first 4000 --pause 2 --timeout 6 --vip 10.0.0.101
lb ipvsadm -e -t 10.0.0.101:80 -r 10.0.0.12:80 -m
# Most often one of these is the first.
keep_asking --first 8000 --conc 2 --vip 10.0.0.101
eq "routed directly before, masqueraded now: new connections are answered" \
	"$(on_routes 5000 --vip 10.0.0.101)" 40
eq "routed directly before: those connections go on" "$(long_status .broken)" 0
kill $!
stop_long

# While a backup is told of entries, IPVS sends their packets itself.
lb ipvsadm -C
lb ipvsadm --start-daemon master --mcast-interface eth0
lb ipvsadm -A -t $SVC -s $SCHED
for n in 1 2; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g; done
settle
start_long 40 --first 10000 --pause 5 --timeout 8
# Without an entry there is none, so none has a route found.
lb ipvsadm -E -t $SVC -s $SCHED -b flag-3
eq "pinned, with a backup: no connection breaks" "$(long_status .broken)" 0
between "pinned, with a backup: some to the server that is about to masquerade" \
	"$(lb ipvsadm -Lnc | grep -c 'ESTABLISHED.*10.0.0.12:80')" 5 40
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -m
keep_asking --first 12000 --conc 8
eq "pinned, with a backup, masqueraded now: new connections are answered" "$(on_routes 11000)" 40
eq "pinned, with a backup, masqueraded now: those connections go on" "$(long_status .broken)" 0
stop_long
