#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The timeouts of IPVS change (ipvsadm --set) on a live service while its slots
# are moving. What was promised when a change was made holds: shorter timeouts
# do not end it early, longer ones do not put it off; later changes go by the
# new ones. Connections are silent for longer than the shorter timeout, so each
# mistake breaks some.

. "$(dirname "$0")/../lib.sh"
setup
SHORT=${SHORT:-10}
LONG_T=${LONG_T:-240}
QUIET=$((SHORT * 13 / 10))
set_all() { lb ipvsadm --set "$1" "$1" "$1"; }
weight() { lb ipvsadm -e -t $SVC -r 10.0.0.1$1:80 -g -w "$2"; }
# made FIRST: the entries that new connections make.
made() {
	flows >"$WORK/before"
	short 60 --first "$1" >/dev/null
	new_flows "$WORK/before" | wc -l
}
# How often the kernel's workers have had something to do, all together.
woken() {
	cat /proc/[0-9]*/status 2>/dev/null | awk '
	/^Name:/ { worker = $2 ~ /^kworker/ }
	/^voluntary/ && worker { sum += $2 }
	END { print sum }'
}

# Slots start to move, a server's grace begins, and then the timeouts become shorter.
set_all "$LONG_T"
service $SVC
made 1000 >/dev/null
start_long 60 --pause $QUIET
home=$(long_status .servers)
# In one breath: before the grace period of the change is over, by which it is settled what moves.
lb ipvsadm -R <<-COMMANDS
	-e -t $SVC -r 10.0.0.14:80 -g -w 0
	-d -t $SVC -r 10.0.0.13:80
	--set $SHORT $SHORT $SHORT
COMMANDS
eq "shorter: connections silent for longer live on, on a deleted server too" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
between "shorter: what moved before still does" "$(made 1000)" 3 57
# Each has another look at all slots that are moving.
for _ in $(seq $((QUIET * 2))); do
	weight 2 1
	nap 1
done
eq "shorter: nor do later changes end it" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
# Its time is over before that of its slots, which is no reason to look all the time.
lb ipvsadm -d -t $SVC -r 10.0.0.14:80
nap $QUIET
before=$(woken)
nap 5
between "shorter: workers have next to nothing to do until then" $(($(woken) - before)) 0 150
eq "shorter: a server deleted later keeps what was promised before" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
lb ipvsadm -a -t $SVC -r 10.0.0.14:80 -g -w 0
lb ipvsadm -a -t $SVC -r 10.0.0.13:80 -g
weight 4 1
eq "shorter: servers are back, no connection is broken" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
stop_long

# Changes made afterwards.
start_long 60 --first 200
# Slots that are not in use have nothing to wait for.
made 1000 >/dev/null
weight 2 0
between "shorter: new slots move" "$(made 1000)" 3 57
nap $((SHORT * 3 / 2))
eq "shorter: and are merged by the new timeout" "$(made 1000)" 0
on3=$(long_status .servers.rs3)
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
gone() { [[ $(long_status '.servers.rs3 // 0') == 0 ]]; }
ok "shorter: so does the grace of a deleted server end" wait_for $((LONG_T / 2)) gone
eq "shorter: only its connections end" "$(long_status .broken)" "$on3"
stop_long
lb ipvsadm -a -t $SVC -r 10.0.0.13:80 -g
weight 2 1
nap $((SHORT * 3 / 2))

# Slots start to move, and then the timeouts become longer.
start_long 60 --first 400
made 1000 >/dev/null
weight 1 0
set_all "$LONG_T"
nap $((SHORT * 3 / 2))
eq "longer: what moved before is merged in its time" "$(made 1000)" 0
eq "longer: no connection breaks" "$(long_status .broken)" 0
stop_long

# Marks that packets left by the old clock are there when the next change is made.
start_long 60 --first 600 --pause $QUIET
weight 1 1
weight 3 0
eq "longer: a later change waits for connections that are silent for so long" \
	"$(long_status .broken)" 0
between "longer: and its slots still move" "$(made 1000)" 3 57
stop_long
