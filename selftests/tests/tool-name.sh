#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# ipvsadm-mhs where the scheduler is registered as mh, for those who cannot name
# another one. Fails when the tool looks for the name mhs anywhere.

. "$(dirname "$0")/../lib.sh"
modprobe ip_vs
SCHED=mh
setup
modprobe ip_vs_mhs sched_name=mh
T=${T:-15}
lb ipvsadm --set "$T" "$T" "$T"
mhs() { lb ipvsadm-mhs "$@"; }

mhs add -t $SVC
for n in 1 2 3 4; do mhs add -t $SVC -r 10.0.0.1$n; done
settle
eq "add: the scheduler is the module's" "$(lb ipvsadm-save -n | grep -- -A)" "-A -t $SVC -s mh"
eq "list" "$(mhs list --json | jq -c '.services[] | [.scheduler, .stateless, .server_count]')" '["mh",true,4]'
eq "show" "$(mhs show --json $SVC | jq '[.servers[].slots_new] | add')" 16381
eq "slots" "$(mhs slots --json $SVC | jq '.slots | length')" 16381
plan=$(mhs plan --json drain 10.0.0.14 | jq '.plans[0].servers[].slots_after' | xargs)
start_long 20
mhs drain 10.0.0.14
settle
eq "plan and drain" "$(mhs show --json $SVC | jq '.servers[].slots_new' | xargs)" "$plan"
eq "metrics" "$(mhs metrics | grep -c 'ipvs_mhs_service_info.*scheduler="mh"')" 1
eq "no connection breaks" "$(long_status .broken)" 0
rc=0
said=$(mhs handover $SVC mh 2>&1) || rc=$?
eq "handover: from mh to mh is none" "$rc $(grep -c 'scheduled by mh already' <<<"$said")" "2 1"
# Who reads what it tells has gone long before the end.
one_line handover $SVC rr 9>&- &
waiting=$!
keep_on() { long_status .broken >/dev/null; ! kill -0 $waiting 2>/dev/null; }
ok "handover: comes to its end" wait_for $((T * 4)) keep_on
ok "handover: with status 0" wait $waiting
eq "handover: to rr" "$(lb ipvsadm-save -n | grep -- -A)" "-A -t $SVC -s rr"
eq "handover: no connection breaks" "$(long_status .broken)" 0
stop_long
