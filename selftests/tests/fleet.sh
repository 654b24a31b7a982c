#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A fleet: balancers announce the virtual address by BGP, a router spreads flows
# over them by ECMP. Nothing is synchronised, and the servers are configured in
# another order on each, yet a flow may move from one balancer to another at any
# time. Fails when two balancers disagree about a single stable flow.

. "$(dirname "$0")/../lib.sh"
setup
plug lb2 10.0.0.3 fd00::3
plug lb3 10.0.0.4 fd00::4
plug router 10.0.0.5 fd00::5
for ns in lb2 lb3; do
	ip -n $ns addr add $VIP/32 dev eth0
	ip -n $ns route add 10.1.0.0/16 via 10.0.0.2
done
in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1 \
	net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
ip -n client route add $VIP/32 via 10.0.0.5

order() {
	echo "-A -t $SVC -s $SCHED"
	for n in "$@"; do echo "-a -t $SVC -r 10.0.0.1$n:80 -g"; done
}
order 1 2 3 4 | lb ipvsadm -R
order 4 2 1 3 | in_ns lb2 ipvsadm -R
order 3 4 2 1 | in_ns lb3 ipvsadm -R
settle

cat >"$WORK/router.conf" <<-CONF
	router id 10.0.0.5;
	protocol device { }
	protocol kernel { ipv4 { export all; }; merge paths on; }
	template bgp balancer {
		local 10.0.0.5 as 65000;
		hold time 60;
		ipv4 { import all; export none; };
		direct;
	}
	protocol bgp lb from balancer { neighbor 10.0.0.1 as 65001; }
	protocol bgp lb2 from balancer { neighbor 10.0.0.3 as 65001; }
	protocol bgp lb3 from balancer { neighbor 10.0.0.4 as 65001; }
CONF
in_ns router bird -c "$WORK/router.conf" -s "$WORK/router.ctl" -P "$WORK/router.pid"
# announce NS ADDRESS / withdraw NS
announce() {
	cat >"$WORK/$1.conf" <<-CONF
		router id $2;
		protocol device { }
		protocol static { ipv4; route $VIP/32 via "eth0"; }
		protocol bgp {
			local $2 as 65001;
			neighbor 10.0.0.5 as 65000;
			direct;
			connect retry time 1;
			connect delay time 1;
			ipv4 { import none; export all; next hop self; };
		}
	CONF
	in_ns "$1" bird -c "$WORK/$1.conf" -s "$WORK/$1.ctl" -P "$WORK/$1.pid"
}
withdraw() { kill "$(cat "$WORK/$1.pid")"; }
paths() { ip -n router route show $VIP | grep -oE 'via 10.0.0.[134]' | sort -u | wc -l; }
are() { [[ $(paths) == "$1" ]]; }
packets() { in_ns "$1" ipvsadm -Ln --stats --exact | awk '/^TCP/ { print $4 }'; }

announce lb 10.0.0.1
announce lb2 10.0.0.3
ok "the router has two paths" wait_for 60 are 2 || ip -n router route
start_long 100 --first 100
home=$(long_status .servers)
eq "100 live connections" "$(long_status .broken)" 0
nap 3
ok "over both balancers" test "$(packets lb)" -gt 50 -a "$(packets lb2)" -gt 50

announce lb3 10.0.0.4
ok "a balancer is added: three paths" wait_for 60 are 3
eq "no connection breaks or moves" "$(long_status .broken) $(long_status .servers)" "0 $home"
withdraw lb
ok "a balancer is lost: two paths" wait_for 60 are 2
eq "no connection breaks or moves" "$(long_status .broken) $(long_status .servers)" "0 $home"
withdraw lb2
ok "another is lost: one path" wait_for 60 are 1
eq "no connection breaks or moves" "$(long_status .broken) $(long_status .servers)" "0 $home"
eq "and new ones are answered" "$(short 40 --first 1000 | jq .answered)" 40
for ns in lb lb2 lb3; do in_ns $ns awk 'NR > 1' /proc/net/ip_vs_conn; done >"$WORK/all"
eq "no balancer has an entry" "$(wc -l <"$WORK/all")" 0
stop_long
kill "$(cat "$WORK/router.pid")" "$(cat "$WORK/lb3.pid")"
