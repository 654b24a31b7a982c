#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All servers to weight 0, and back: as before an upgrade of everything. Live
# connections live on, new ones are refused, and afterwards nothing is left of
# it. Fails when a slot without a server forgets where its flows live, or is
# unstable for no reason once servers are back.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-40}
lb ipvsadm --set "$T" "$T" "$T"
service $SVC
weights() { for n in 1 2 3 4; do echo "-e -t $SVC -r 10.0.0.1$n:80 -g -w $1"; done | lb ipvsadm -R; }
# The same clients as above: their slots are in use.
refused() { short 60 --timeout 15 | jq -c .errors; }
resets() { lb nstat -asz TcpOutRsts | awk '$1 == "TcpOutRsts" { print $2 }'; }

short 60 >/dev/null
start_long 60 --first 1000
home=$(long_status .servers)
eq "before: no connection is broken, no entry" "$(long_status .broken) $(entries)" "0 0"

weights 0
eq "all drained: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
eq "all drained: each has an entry" "$(entries)" 60
eq "all drained: new connections are refused" "$(refused)" '{"ConnectionRefusedError":60}'
weights 1
settle
flows >"$WORK/before"
eq "back: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
result=$(short 60)
eq "back: new connections are answered by all servers" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[60,4]"
eq "back: they make no entry" "$(new_flows "$WORK/before" | wc -l)" 0

# For longer than the session timeout.
weights 0
nap $((T * 3 / 2))
eq "merged: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
eq "merged: new connections are refused" "$(refused)" '{"ConnectionRefusedError":60}'
before=$(resets)
flows >"$WORK/before"
stray 20 --flags A --first 5000 >/dev/null
reset_all() { (($(resets) - before >= 20)); }
ok "merged: what belongs to no connection gets a RST of the balancer" wait_for 10 reset_all
eq "merged: and no entry" "$(new_flows "$WORK/before" | wc -l)" 0
# One is back: flows may begin there, and nobody lives elsewhere.
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 1
settle
eq "one is back: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
flows >"$WORK/before"
eq "one is back: it answers every new connection" "$(short 60 | jq -c .servers)" '{"rs1":60}'
eq "one is back: they make no entry" "$(new_flows "$WORK/before" | wc -l)" 0
weights 1
settle
result=$(short 60)
eq "all are back: new connections are answered by all servers" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[60,4]"
eq "all are back: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
stop_long
