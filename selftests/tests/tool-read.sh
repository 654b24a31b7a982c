#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What ipvsadm-mhs shows of services, servers, slots and counters, against what
# this test did, ipvsadm and /proc/net/ip_vs*. Fails when a number is of
# something else, or an error is not told from another.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
mhs() { lb ipvsadm-mhs "$@"; }
get() { mhs "${@:2}" --json | jq -r "$1"; }

# fails STATUS PATTERN COMMAND...: ends so, with one line that says this.
fails() {
	local status=$1 pattern=$2 said rc=0
	shift 2
	said=$("$@" 2>&1) || rc=$?
	eq "${*##*/}: status" $rc "$status"
	ok "${*##*/}: says '$pattern', in one line" grep -qe "$pattern" <<<"$said"
	eq "${*##*/}: nothing else" "$(wc -l <<<"$said")" 1
}

fails 3 'mhs is not there: load the module' lb ipvsadm-mhs list
fails 3 'mhs is not there: load the module' lb ipvsadm-mhs events
# A module that has no netlink family looks like this to the tool.
old=$(mktemp -d)
mkdir "$old/ip_vs_mhs"
fails 5 'too old' unshare -m sh -c 'mount --bind "$1" /sys/module && ipvsadm-mhs list' - "$old"
rm -r "$old"

service $SVC
service "$SVC6"
lb ipvsadm -A -t 10.0.0.100:81 -s rr
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 3
lb ipvsadm -A -f 7 -s $SCHED -p 60
lb ipvsadm -A -f 7 -6 -s $SCHED
lb ipvsadm -a -f 7 -6 -r [fd00::11]:0 -g
settle

eq "list: the services that ipvsadm shows as mhs" \
	"$(get '.services[].service | if .fwmark then "-f \(.fwmark)" else "-\(.protocol[:1]) \(.address)" end' list | sort)" \
	"$(lb ipvsadm-save -n | sed -n '/^-A.* -s mhs/ { s/ -s .*//; s/ -6//; s/:80$//; s/^-A //; s/[][]//g; p }' | sort)"
eq "list: table size and key are the module's" "$(get '.services[0] | "\(.slots) \(.hash_key)"' list)" \
	"$(cd /sys/module/ip_vs_mhs/parameters && echo "$(cat table_size) $(cat hash_key)")"
eq "list: the session timeout is that of ipvsadm --set" "$(get .session_timeout_ms show $SVC)" $((T * 1000))
eq "list: a service that is persistent, or has no server, is stateful" \
	"$(get '[.services[] | select(.service.fwmark) | .stateless] | join(" ")' list)" "false true"
fails 6 'no service TCP 10.0.0.9:80' lb ipvsadm-mhs show -t 10.0.0.9:80
fails 6 'has the name 10.0.0.9:80' lb ipvsadm-mhs show 10.0.0.9:80
fails 6 'is scheduled by rr' lb ipvsadm-mhs show -t 10.0.0.100:81
fails 6 'is scheduled by rr' lb ipvsadm-mhs slots -t 10.0.0.100:81
fails 2 'neither a port' lb ipvsadm-mhs show 10.0.0.9:no-such-port
fails 4 'not permitted' ip netns exec lb setpriv --bounding-set -all --inh-caps -all --ambient-caps -all \
	ipvsadm-mhs list
# A table of the default key would be another one: the module's is for root to read.
fails 4 'needs the hash key' ip netns exec lb setpriv --reuid 65534 --inh-caps +net_admin \
	--ambient-caps +net_admin ipvsadm-mhs plan add -t 10.0.0.100:81 -r 10.0.0.11
for form in "-t $SVC" $SVC tcp:$SVC "-t 10.0.0.100:http" "TCP:10.0.0.100:http"; do
	# shellcheck disable=SC2086
	eq "show $form" "$(get '.service.address' show $form)" $VIP
done
for form in "-t $SVC6" "$SVC6" "tcp:$SVC6"; do
	# shellcheck disable=SC2086
	eq "show $form" "$(get '.service.address' show $form)" $VIP6
done
eq "show -f 7 -6" "$(get '.server_count' show -f 7 -6)" 1

# Servers.
eq "show: servers and weights as ipvsadm has them" \
	"$(get '.servers[] | "\(.address):\(.port) \(.method) \(.weight)"' show $SVC)" \
	"$(lb ipvsadm -Ln -t $SVC | awk '/->.*Route/ { print $2, $3, $4 }' | sort)"
eq "show: each slot is somebody's" "$(get '[.servers[].slots_new] | add' show $SVC)" 16381
between "show: slots by weight, 3 of 6" "$(get '.servers[1].slots_new' show $SVC)" 8100 8700

# Counters: what went by hash is what the client sent.
before=$(get '.counters.packets' show $SVC)
result=$(short 100)
eq "100 connections are answered, without an entry" "$(jq .answered <<<"$result") $(entries)" "100 0"
eq "show: 100 flows" "$(get '.counters.conns' show $SVC)" 100
counted() { lb ipvsadm -Ln --stats --exact -t $SVC | awk '/^TCP/ { print $3, $4, $6 }'; }
same_as_ipvs() { [[ $(get '.counters | "\(.conns) \(.packets) \(.bytes)"' show $SVC) == "$(counted)" ]]; }
ok "show: flows, packets and bytes are those of ipvsadm --stats" wait_for 5 same_as_ipvs
eq "show: so are those of the servers" \
	"$(get '.servers[] | "\(.packets) \(.bytes)"' show $SVC)" \
	"$(lb ipvsadm -Ln --stats --exact -t $SVC | awk '/->/ && !/Remote/ { print $2, $4, $6 }' | sort |
		awk '{ print $2, $3 }')"
eq "metrics: the same packets, over all CPUs" \
	"$(mhs metrics | awk '/^ipvs_mhs_stateless_packets_total.*"10.0.0.100"/ { n += $2 } END { print n }')" \
	"$(get '.counters.packets' show $SVC)"
# A parser of Prometheus reads it, and finds what JSON says.
parsed=$(mhs metrics | python3 -c '
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
families = {family.name: family for family in parse(sys.stdin.read())}
of = lambda name: [s for s in families[name].samples if s.labels.get("address") == "10.0.0.100"]
print(len(families), int(sum(s.value for s in of("ipvs_mhs_slots"))),
      int(sum(s.value for s in of("ipvs_mhs_connections"))))') || parsed=unreadable
eq "metrics: as OpenMetrics they have so many families, slots and flows" "$parsed" \
	"26 16381 $(get .counters.conns show $SVC)"
eq "metrics: the last line" "$(mhs metrics | tail -n 1)" "# EOF"
eq "metrics: a line each for type and help, before the samples" \
	"$(mhs metrics | awk '/^# TYPE/ { t++ } /^# HELP/ { h++ } END { print (t > 20 && t == h) }')" 1

# Slots, and a change of them with live connections.
start_long 60
lb ipvsadm-mhs events --json --timeout 60 >"$WORK/events" 9>&- &
events=$!
nap 1
before=$(get '.slots[] | "\(.[0]) \(.[1]) \(.[2])"' slots $SVC)
eq "slots: all of them, each once" "$(wc -l <<<"$before") $(sort -n -u <<<"$before" | wc -l)" "16381 16381"
eq "slots: none is unstable" "$(awk '$2 != $3' <<<"$before" | wc -l) $(get '.slots | length' slots --unstable $SVC)" "0 0"
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g -w 0
eq "drained: no connection breaks" "$(long_status .broken)" 0
unstable=$(get '.unstable' show $SVC)
between "drained: slots of live connections are unstable" "$unstable" 10 60
eq "slots: the unstable ones, all from that server" \
	"$(get '.servers as $s | [.slots[] | $s[.[1]].address] | "\(length) \(unique | join(" "))"' slots --unstable $SVC)" \
	"$unstable 10.0.0.12"
between "slots: time left" "$(get '[.slots[][3]] | max' slots --unstable $SVC)" 1 $((T * 1000 + 1000))
eq "show: the server is draining, with as many old slots" \
	"$(get '.servers[1] | "\(.state) \(.slots_old) \(.slots_new)"' show $SVC)" "draining $unstable 0"
eq "show: entries as in /proc/net/ip_vs_conn" "$(get '[.servers[] | .entries_active + .entries_inactive] | add' show $SVC)" \
	"$(entries)"
eq "show: so many flows were pinned" "$(get '.counters | .pins_old + .pins_new' show $SVC)" "$(entries)"
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
eq "deleted: no connection breaks" "$(long_status .broken)" 0
eq "show: the server is in its grace" "$(get '[.servers[] | select(.address == "10.0.0.13") | .state] | join(" ")' show $SVC)" grace
between "show: and how long" "$(get '.servers[] | select(.address == "10.0.0.13") | .time_left_ms' show $SVC)" 1 $((T * 1000))
eq "show: ipvsadm has it no more" "$(get .server_count show $SVC)" "$(lb ipvsadm -Ln -t $SVC | grep -c Route)"

# Reading ten times a second, while connections go on and servers come and go.
while sleep 0.1; do mhs list && mhs show $SVC && mhs slots $SVC && mhs metrics; done >/dev/null &
reader=$!
for _ in 1 2 3; do
	lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
	lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 1
done
eq "read at 10 Hz: the server in its grace keeps its connections" "$(long_status .broken)" 0
eq "read at 10 Hz: new connections are answered" "$(short 60 --first 5000 | jq .answered)" 60
kill $reader
stable() { [[ $(get .unstable show $SVC) == 0 ]]; }
ok "merged: every slot is stable" wait_for $((T * 4)) stable
gone() { [[ $(get '[.servers[].address] | index("10.0.0.13")' show $SVC) == null ]]; }
ok "after its grace the server is gone" wait_for $((T * 4)) gone

# Events: what happened.
ok "events: end after the time that was given" wait $events
count() { jq -s "[.[] | select($1)] | length" "$WORK/events"; }
between "events: remaps of updates" "$(count '.event == "remap" and .cause == "update"')" 3 7
eq "events: a remap of the deletion" "$(count '.event == "remap" and .cause == "delete"')" 1
eq "events: the server is draining" "$(count '.server.address == "10.0.0.12" and .state == "draining"')" 1
eq "events: the server in its grace" "$(count '.server.address == "10.0.0.13" and .state == "grace"')" 1
eq "events: none is lost" "$(count '.event == "lost"')" 0
between "events: merges" "$(count '.event == "merge" and .merged > 0')" 1 30
stop_long
