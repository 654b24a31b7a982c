#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A SYN flood from everywhere: against stable slots it leaves nothing behind;
# against moving slots, entries up to conn_max and no service is lost. Fails when
# SYNs make entries in stable slots, or a full table refuses clients.

. "$(dirname "$0")/../lib.sh"
FLOOD=${FLOOD:-$([[ ${MHS_GUEST-} == stock ]] && echo 1050000 || echo 100000)}
setup
service $SVC
# Nobody is at those addresses: no answers to them, and where it can be told, none are made.
modprobe -q nf_tables
for n in 1 2 3 4; do
	ip -n rs$n route add blackhole default
	in_ns rs$n nft -f - 2>/dev/null <<-NFT || true
		table netdev flood {
			chain in {
				type filter hook ingress device eth0 priority 0;
				ip daddr $VIP ip saddr != 10.0.0.0/8 drop
			}
		}
	NFT
done

flood() { in_ns client python3 "$HERE/flood.py" "$1"; }
# Segments that IPVS has counted for the service.
seen() { lb ipvsadm -Ln --stats --exact | awk '/^TCP/ { print $4 }'; }
objects() { awk '$1 == "ip_vs_conn" { n = $2 } END { print n + 0 }' /proc/slabinfo; }

before=$(entries)
held=$(objects)
flood "$FLOOD" &
pid=$!
answered=0 peak=0 rounds=0
while kill -0 $pid 2>/dev/null; do
	# Before what may end the loop: nothing, instead of a number.
	rounds=$((rounds + 1))
	answered=$((answered + $(short 20 --conc 5 --first $((rounds % 500 * 20)) | jq .answered)))
	n=$(entries)
	((n <= peak)) || peak=$n
	nap 1
done
wait $pid
nap 5
ok "stable: a flood of $FLOOD SYNs came through ($(seen) counted)" test "$(seen)" -ge $((FLOOD * 20 / 21))
eq "stable: no entry at any time" "$before $peak $(entries)" "0 0 0"
# What an allocator keeps for each CPU is counted as held.
between "stable: no memory of one" "$(objects)" 0 $((held + 64))
ok "stable: there were clients meanwhile" test $rounds -gt 0
eq "stable: every one was answered" "$answered" $((rounds * 20))

MAX=$((FLOOD / 250))
lb sysctl -qw net.ipv4.vs.conn_max=$MAX
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
lb ipvsadm -d -t $SVC -r 10.0.0.12:80
flood $((FLOOD / 5)) &
pid=$!
answered=0 rounds=0
while kill -0 $pid 2>/dev/null; do
	rounds=$((rounds + 1))
	answered=$((answered + $(short 20 --conc 5 --first $((20000 + rounds % 500 * 20)) | jq .answered)))
	nap 1
done
wait $pid
between "moving: entries end at conn_max" "$(entries)" $((MAX * 9 / 10)) "$MAX"
ok "moving: there were clients meanwhile" test $rounds -gt 0
eq "moving: every one was answered" "$answered" $((rounds * 20))
eq "moving: and is after" "$(short 20 --first 50000 | jq .answered)" 20
