#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets out of the ordinary: super-packets, fragments, options and extension
# headers, headers cut short and nonsense; a full table of entries. Fails when
# something that IPVS would forward is lost, or when nonsense makes entries.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
modprobe -q nf_tables

service $SVC
service "$SVC6"
for n in 1 2 3 4; do
	serve $n udp $VIP 53
	serve $n udp $VIP6 53
done
lb ipvsadm -A -u $VIP:53 -s $SCHED
lb ipvsadm -A -u "[$VIP6]:53" -s $SCHED
for n in 1 2 3 4; do
	lb ipvsadm -a -u $VIP:53 -r 10.0.0.1$n:53 -g
	lb ipvsadm -a -u "[$VIP6]:53" -r "[fd00::1$n]:53" -g
done
settle

# Segmentation offload hands over segments of up to 64 KiB.
head -c 2000000 /dev/zero >"$WORK/upload"
upload() {
	in_ns client curl -s -m 30 -o /dev/null -w '%{http_code} %{size_upload}' \
		--data-binary "@$WORK/upload" "http://$1/"
}
eq "super-packets, IPv4" "$(upload $VIP)" "200 2000000"
eq "super-packets, IPv6" "$(upload [$VIP6])" "200 2000000"

result=$(short 20 --proto udp --port 53 --size 5000)
eq "fragments, IPv4" "$(jq .answered <<<"$result")" 20
result=$(short 20 --proto udp --port 53 --size 5000 --vip $VIP6)
eq "fragments, IPv6" "$(jq .answered <<<"$result")" 20
eq "no entry" "$(entries)" 0

# What arrives at the servers is counted there.
for n in 1 2 3 4; do
	in_ns rs$n nft -f - <<-NFT
		table inet count {
			counter arrived { }
			chain pre {
				type filter hook prerouting priority raw;
				ip daddr $VIP tcp dport 80 counter name arrived
				ip6 daddr $VIP6 tcp dport 80 counter name arrived
			}
		}
	NFT
done
arrived() {
	for n in 1 2 3 4; do in_ns rs$n nft -j list counters; done |
		jq -s '[.[].nftables[].counter.packets // 0] | add'
}
# craft WHAT COUNT: sends, and prints how many arrived.
craft() {
	local before
	before=$(arrived)
	in_ns client python3 "$HERE/craft.py" "$1" "$2"
	for _ in $(seq 30); do
		(($(arrived) - before < $2)) || break
		nap 0.2
	done
	echo $(($(arrived) - before))
}
eq "IPv4 options" "$(craft options 20)" 20
eq "IPv6 hop-by-hop and destination options" "$(craft extensions 20)" 20
# The answers to these SYNs are reset.
ok "IPv6 extension headers in plenty" test "$(craft many-extensions 20)" -ge 20
eq "IPv4 fragments of a segment: whole again" "$(craft fragments 20)" 20
eq "TCP options up to the limit" "$(craft tcp-options 20)" 20
eq "no entry of those" "$(entries)" 0
ok "nonsense is sent" in_ns client python3 "$HERE/craft.py" nonsense 3000
nap 2
eq "nonsense: no entry" "$(entries)" 0
ok "SYNs in IPv6 fragments are sent" in_ns client python3 "$HERE/craft.py" torn 20
nap 2
eq "SYNs in IPv6 fragments that reassembly refuses: no entry" "$(entries)" 0
eq "and life goes on" "$(short 20 --first 100 | jq .answered) $(short 20 --vip $VIP6 | jq .answered)" "20 20"

# A full table: forwarded without an entry.
lb sysctl -qw net.ipv4.vs.conn_max=10
start_long 40 --first 1000
lb ipvsadm -a -t $SVC -r 10.0.0.15:80 -g -w 0
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 3
eq "full table: no live connection breaks" "$(long_status .broken)" 0
eq "full table: new connections are answered" "$(short 60 --first 2000 | jq .answered)" 60
between "full table: entries end at conn_max" "$(entries)" 8 10
stop_long
