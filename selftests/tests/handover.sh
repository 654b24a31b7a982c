#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Handover: with -b flag-3 every flow gets an entry, and then another scheduler
# can take over, and give back, with no connection broken. Fails when flows of
# stable slots stay without an entry, or entries of another scheduler are ignored.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"

service $SVC
start_long 60
home=$(long_status .servers)
eq "before: no entry" "$(entries)" 0
lb ipvsadm -E -t $SVC -s $SCHED -b flag-3
eq "handover: no connection breaks" "$(long_status .broken)" 0
eq "handover: each has an entry" "$(entries)" 60
stray 50 --flags R --first 500 >/dev/null
nap 1
eq "handover: an RST out of nothing has none" "$(entries)" 60

for sched in mh rr mh; do
	lb ipvsadm -E -t $SVC -s $sched
	eq "$sched: no connection breaks" "$(long_status .broken)" 0
done
lb ipvsadm -E -t $SVC -s $SCHED
eq "back: no connection breaks" "$(long_status .broken)" 0
# They keep asking, but their entries say what the table says. Where those are used they stay, for as
# long as there may be others: minutes.
faded() { [[ $(entries_from 0 60) == 0 ]]; }
ok "back: their entries fade" wait_for $((T * 4)) faded
eq "back: and they live on" "$(long_status .broken)" 0

# Connections that rr has put elsewhere live on, too.
lb ipvsadm -E -t $SVC -s rr
result=$(short 1 --first 999)
stop_long
start_long 40 --first 2000
rr=$(long_status .servers)
lb ipvsadm -E -t $SVC -s $SCHED
eq "from rr: no connection breaks" "$(long_status .broken)" 0
eq "from rr: all are where they were" "$(long_status .servers)" "$rr"
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
eq "from rr: nor when servers change" "$(long_status .broken) $(long_status .servers)" "0 $rr"
nap $((T * 3 / 2))
eq "from rr: nor when slots merge" "$(long_status .broken) $(long_status .servers)" "0 $rr"
stop_long
ok "every entry fades" wait_for $((T * 10)) no_entries
