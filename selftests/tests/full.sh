#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The table of entries is full (net.ipv4.vs.conn_max) and slots are moving. There
# is no entry then to keep a flow where it began, so all its packets must go to
# one server: the old one, unless that is deleted. Fails when the SYN of a new
# connection goes to another server than what follows, or when live connections
# break for want of an entry.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-90}
tunnel_ends
lb ipvsadm --set "$T" "$T" 600

# The entries of another service fill the table.
serve 1 udp $VIP 53
lb ipvsadm -A -u $VIP:53 -s rr
lb ipvsadm -a -u $VIP:53 -r 10.0.0.11:53 -g
service $SVC
before=$(short 60 --clients | jq -cS .clients)
start_long 40 --first 1000
home=$(long_status .servers)
eq "12 entries of another service" "$(short 12 --proto udp --port 53 | jq .answered) $(entries)" "12 12"
lb sysctl -qw net.ipv4.vs.conn_max=10

# elsewhere CLIENTS: how many clients have another server than before.
elsewhere() {
	jq -s '.[0] as $before | [.[1] | to_entries[] | select($before[.key] != .value)] | length' <<<"$before $1"
}
# on N CLIENTS: how many of the clients server N has.
on() { jq "[.[] | select(. == \"rs$1\")] | length" <<<"$2"; }

lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
settle
between "full, a server drained: clients whose slots move" "$(on 1 "$before")" 5 40
result=$(short 60 --clients --timeout 10)
eq "full, a server drained: every new connection is answered" "$(jq .answered <<<"$result")" 60
eq "full, a server drained: by the old table" "$(elsewhere "$(jq .clients <<<"$result")")" 0
eq "full, a server drained: no live connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"

between "full, another deleted: clients whose slots move" "$(on 2 "$before")" 5 40
on2=$(long_status .servers.rs2)
lb ipvsadm -d -t $SVC -r 10.0.0.12:80
settle
result=$(short 60 --clients --timeout 10)
eq "full, another deleted: every new connection is answered" "$(jq .answered <<<"$result")" 60
eq "full, another deleted: none by that" "$(on 2 "$(jq .clients <<<"$result")")" 0
eq "full, another deleted: no live connection of the others breaks" \
	"$(long_status "[.broken - (.broken_on.rs2 // 0), .servers.rs1, .servers.rs3, .servers.rs4] | tostring")" \
	"[0,$(jq -r '"\(.rs1),\(.rs3),\(.rs4)"' <<<"$home")]"
echo "# $(long_status '.broken_on.rs2 // 0') of $on2 connections of the deleted server are broken"
eq "full: no entry was made" "$(entries)" 12

# Where nothing moves all goes on without entries, whatever changes about the way to a server.
broken=$(long_status .broken) on3=$(long_status .servers.rs3)
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -i
eq "full, another by tunnel now: no connection breaks" \
	"$(long_status .broken) $(long_status .servers.rs3)" "$broken $on3"
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g
eq "full, and back: no connection breaks" "$(long_status .broken) $(long_status .servers.rs3)" "$broken $on3"
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -m
eq "full, another masquerades now: no connection breaks" \
	"$(long_status .broken) $(long_status .servers.rs3)" "$broken $on3"
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g
eq "full, and back again: no connection breaks" \
	"$(long_status .broken) $(long_status .servers.rs3)" "$broken $on3"
ip -n lb addr add 10.0.0.101/32 dev eth0
ip -n rs4 addr add 10.0.0.101/32 dev lo
lb ipvsadm -A -t 10.0.0.101:80 -s $SCHED
lb ipvsadm -a -t 10.0.0.101:80 -r 10.0.0.14:80 -g
settle
eq "full, a new service: every connection is answered" "$(short 20 --first 2000 --vip 10.0.0.101 | jq .answered)" 20
lb ipvsadm -D -t 10.0.0.101:80
eq "full, all that: no entry was made" "$(entries)" 12

# There is room again: what lives gets its entry, what is new goes by the new table.
broken=$(long_status .broken)
lb sysctl -qw net.ipv4.vs.conn_max=100000
eq "room: no live connection breaks" "$(long_status .broken)" "$broken"
between "room: they get entries" "$(entries)" 17 52
result=$(short 60 --clients)
eq "room: new connections are answered, none by the drained server or the deleted one" \
	"$(jq -c '[.answered, .servers.rs1, .servers.rs2]' <<<"$result")" "[60,null,null]"
eq "room: nor do they break a live one" "$(long_status .broken)" "$broken"
stop_long

# What begins without an entry, in slots of a deleted server, goes on where it is when there is room.
anew() {
	lb sysctl -qw net.ipv4.vs.conn_max=100000
	lb ipvsadm -C
	service $SVC
}
begin_in_full_table() {
	anew
	short 60 --first 3000 >/dev/null
	lb sysctl -qw net.ipv4.vs.conn_max=10
	lb ipvsadm -d -t $SVC -r 10.0.0.12:80
	settle
	start_long 60 --first 3000
	home=$(long_status .servers)
}
begin_in_full_table
eq "full, a server deleted: connections begin, none there, none with an entry" \
	"$(jq -c '[add, .rs2]' <<<"$home") $(entries_from 3000 60)" "[60,null] 0"
lb sysctl -qw net.ipv4.vs.conn_max=100000
eq "room: they go on where they are" "$(long_status .broken) $(long_status .servers)" "0 $home"
between "room: those of moving slots have entries" "$(entries_from 3000 60)" 3 40
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g -w 0
eq "room: what lives on a server that took theirs stays there when that is drained" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
stop_long

# So it does while the table stays full, whatever else changes. Nothing lives on a deleted server then.
for event in "-a -r 10.0.0.12:80 -g" "-e -r 10.0.0.13:80 -g -w 0" "-d -r 10.0.0.13:80"; do
	begin_in_full_table
	[[ $event != -d* ]] || lb sysctl -qw net.ipv4.vs.conn_max=100000
	# shellcheck disable=SC2086
	lb ipvsadm ${event/ / -t $SVC }
	eq "full, a server deleted, then $event: what began meanwhile stays where it is" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	stop_long
done

# Where the new server masquerades nothing can begin, so what lives on the deleted one is not given up.
anew
lb sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
ip -n rs4 addr del $VIP/32 dev lo
ip -n rs4 route replace 10.1.0.0/16 via 10.0.0.1
lb ipvsadm -d -t $SVC -r 10.0.0.14:80
lb ipvsadm -a -t $SVC -r 10.0.0.14:80 -m
settle
start_long 60 --first 4000
on1=$(long_status .servers.rs1)
lb sysctl -qw net.ipv4.vs.conn_max=10
lb ipvsadm -d -t $SVC -r 10.0.0.11:80
settle
short 60 --timeout 3 >/dev/null
between "full, a new server that masquerades: some of $on1 connections live on" \
	$((on1 - $(long_status '.broken_on.rs1 // 0'))) 1 $((on1 - 1))
stop_long
