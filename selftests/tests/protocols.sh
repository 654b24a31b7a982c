#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# UDP and SCTP are stateless too, each by its own rules. Fails when a stable slot
# makes an entry, when an association breaks as servers come and go, when UDP
# stays with a server that is not live any more, or comes back to it, or when -o
# makes entries.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
modprobe sctp
modprobe -q nf_tables
# SCTP has timeouts of its own, 15 minutes for what is established; they cannot
# be set, so its merges are not waited for here.

# UDP.
for n in 1 2 3 4; do serve "$n" udp $VIP 53; done
lb ipvsadm -A -u $VIP:53 -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -u $VIP:53 -r 10.0.0.1$n:53 -g; done
settle
result=$(short 100 --proto udp --port 53)
eq "UDP: every flow is answered" "$(jq .answered <<<"$result")" 100
eq "UDP: by all servers" "$(jq '.servers | length' <<<"$result")" 4
eq "UDP: no entry" "$(entries)" 0

start_long 40 --proto udp --port 53 --first 1000
home=$(long_status .servers)
lb ipvsadm -e -u $VIP:53 -r 10.0.0.11:53 -g -w 2
eq "UDP: a weight changes: no flow moves" "$(long_status .broken)" 0
between "UDP: flows of moving slots have entries" "$(entries)" 1 40
eq "UDP: and are where they were" "$(long_status .servers)" "$home"
on2=$(long_status .servers.rs2)
lb ipvsadm -d -u $VIP:53 -r 10.0.0.12:53
settle
eq "UDP: a server is deleted: its flows, and only those, go elsewhere" \
	"$(long_status '.broken_on.rs2, .broken, .states.moved' | xargs)" "$on2 $on2 $on2"
stop_long
ok "UDP: every entry fades" wait_for $((T * 10)) no_entries

# Flows that lose their server live on elsewhere, though it is there again before they speak again.
in_ns rs2 nft -f - <<-NFT
	table inet seen {
		counter came { }
		chain pre {
			type filter hook prerouting priority raw;
			ip daddr $VIP udp dport 53 udp sport 5000 counter name came
		}
	}
NFT
server() { lb ipvsadm "$1" -u $VIP:53 -r 10.0.0.1"$2":53 "${@:3}"; }
# came: a datagram of each flow, and how many have come to server 2 so far.
came() {
	in_ns client python3 "$HERE/kinds.py" 200 5000 datagram
	nap 0.5
	in_ns rs2 nft -j list counters | jq '[.nftables[].counter.packets // 0] | add'
}
server -a 2 -g
settle
between "UDP: flows on a server" "$(came)" 20 120
server -e 3 -g -w 3
had=$(came)
between "UDP: and some have entries for it" "$(lb ipvsadm -Lnc | grep -c '10.0.0.12:53')" 2 120
server -d 2
eq "UDP: it is deleted: they go elsewhere" "$(came)" "$had"
server -a 2 -g
eq "UDP: it is added again: they stay where they went" "$(came)" "$had"
ok "UDP: their entries fade" wait_for $((T * 10)) no_entries

# One packet scheduling: never an entry, whatever happens.
lb ipvsadm -E -u $VIP:53 -s $SCHED -o
start_long 30 --proto udp --port 53 --first 2000
lb ipvsadm -e -u $VIP:53 -r 10.0.0.13:53 -g -w 0
settle
short 40 --proto udp --port 53 --first 3000 >/dev/null
eq "UDP -o: no entry, in moving slots either" "$(entries)" 0
stop_long
lb ipvsadm -C

# SCTP.
for n in 1 2 3 4; do serve "$n" sctp $VIP 99; done
lb ipvsadm -A --sctp-service $VIP:99 -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a --sctp-service $VIP:99 -r 10.0.0.1$n:99 -g; done
settle
result=$(short 60 --proto sctp --port 99)
eq "SCTP: every association is answered" "$(jq .answered <<<"$result")" 60
eq "SCTP: by all servers" "$(jq '.servers | length' <<<"$result")" 4
eq "SCTP: no entry" "$(entries)" 0
start_long 40 --proto sctp --port 99 --first 1000
lb ipvsadm -e --sctp-service $VIP:99 -r 10.0.0.14:99 -g -w 0
eq "SCTP: drain: no association breaks" "$(long_status .broken)" 0
between "SCTP: drain: flows of moving slots have entries" "$(entries)" 1 40
result=$(short 40 --proto sctp --port 99 --first 2000)
eq "SCTP: drain: new associations go elsewhere" \
	"$(jq '.answered - (.servers.rs4 // 0)' <<<"$result")" 40
lb ipvsadm -d --sctp-service $VIP:99 -r 10.0.0.13:99
eq "SCTP: delete: no association breaks" "$(long_status .broken)" 0
stop_long
lb ipvsadm -C
