#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# keepalived checks real web servers and balances them with lb_algo mh, which
# this module answers for: a server dies and comes back under load. Fails when
# connections to other servers break, or entries stay.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
modprobe ip_vs_mhs sched_name=mh

{
	echo "global_defs {"
	echo "	router_id lb"
	echo "}"
	echo "virtual_server $VIP 80 {"
	printf '\t%s\n' "delay_loop 1" "lb_algo mh" "lb_kind DR" "protocol TCP"
	for n in 1 2 3 4; do
		printf '\t%s\n' "real_server 10.0.0.1$n 80 {" "	weight 1" "	HTTP_GET {" \
			"		url {" "			path /" "			status_code 200" "		}" \
			"		connect_timeout 3" "		retry 1" "		delay_before_retry 1" "	}" "}"
	done
	echo "}"
} >"$WORK/keepalived.conf"
lb keepalived -C -n -f "$WORK/keepalived.conf" -p "$WORK/k.pid" -c "$WORK/c.pid" \
	>"$WORK/keepalived.log" 2>&1 &
servers() { lb ipvsadm -Ln | grep -c '^ *-> 10'; }
are() { [[ $(servers) == "$1" ]]; }
ok "keepalived configures the service" wait_for 60 are 4 || cat "$WORK/keepalived.log"
eq "the scheduler is mh, and it is this one" \
	"$(lb ipvsadm -Ln | awk '/^TCP/ { print $3 }') $(ls -d /sys/module/ip_vs_mhs)" \
	"mh /sys/module/ip_vs_mhs"
settle
start_long 60
eq "60 live connections, no entry" "$(long_status .broken) $(entries)" "0 0"

on2=$(long_status .servers.rs2)
kill -9 "$(cat "$WORK/rs2/pid")" $(pgrep -P "$(cat "$WORK/rs2/pid")")
ok "a server dies: it is taken out" wait_for 60 are 3
settle
eq "only its connections break" "$(long_status .broken) $(long_status .broken_on.rs2)" "$on2 $on2"
eq "new connections go elsewhere" "$(short 60 --first 1000 | jq '.answered - (.servers.rs2 // 0)')" 60
in_ns rs2 nginx -c "$WORK/rs2/conf" -e "$WORK/rs2/log"
ok "it comes back: it is put in" wait_for 60 are 4
eq "no other connection breaks" "$(long_status .broken)" "$on2"
stop_long
ok "every entry fades" wait_for $((T * 10)) no_entries
result=$(short 60 --first 2000)
eq "all servers again, no entry" "$(jq '.servers | length' <<<"$result") $(entries)" "4 0"
kill "$(cat "$WORK/k.pid")"
gone() { ! lb ipvsadm -Ln | grep -q ^TCP; }
ok "keepalived ends: the service is gone" wait_for 30 gone
lb ipvsadm -C
