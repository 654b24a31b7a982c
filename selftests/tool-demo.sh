#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A day of an operator with ipvsadm-mhs, in a minute: what the manual shows.
#
#   scripts/guest um -- bash tool-demo.sh

. "$(dirname "$0")/lib.sh"
setup >/dev/null 2>&1
lb ipvsadm --set 30 30 30
modprobe ip_vs_mhs

# run COMMAND...: shows the command and what it prints.
run() {
	echo "\$ $*"
	lb "$@" 2>&1 || echo "(exit status $?)"
	echo
}

run ipvsadm-mhs add -t $SVC
for n in 1 2 3 4; do run ipvsadm-mhs add -t $SVC -r 10.0.0.1$n -w $((n == 4 ? 2 : 1)); done | grep '^\$'
echo
settle
start_long 200 >/dev/null
run ipvsadm-mhs list
lb timeout 100 ipvsadm-mhs events >"$WORK/events" 2>/dev/null 9>&- &
run ipvsadm-mhs plan drain 10.0.0.14
run ipvsadm-mhs drain 10.0.0.14
long_status .broken >/dev/null
run ipvsadm-mhs show $SVC
echo "\$ ipvsadm-mhs slots --unstable $SVC | head -n 4"
lb ipvsadm-mhs slots --unstable $SVC | head -n 4
echo
run ipvsadm-mhs drain 10.0.0.13 --wait --timeout 2
run ipvsadm-mhs show udp:$SVC
long_status .broken >/dev/null
run ipvsadm-mhs replace 10.0.0.12 10.0.0.15
lb ipvsadm-mhs handover $SVC >"$WORK/handover" 9>&- &
waiting=$!
while kill -0 $waiting 2>/dev/null; do long_status .broken >/dev/null; done
echo "\$ ipvsadm-mhs handover $SVC"
cat "$WORK/handover"
echo "broken connections: $(long_status .broken)"
echo
echo "\$ ipvsadm-mhs events"
cat "$WORK/events"
stop_long >/dev/null
COUNT=0
