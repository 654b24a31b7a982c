#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Express mode (express=1): packets of stateless flows leave before they are
# routed, and are counted as ever. What is not plain takes the long way: the last
# hop, a packet that is too large, a virtual address that is not of this host, a
# server whose neighbour is not known. Fails when such a packet is sent on all the
# same, or none is.

EXPRESS=1
. "$(dirname "$0")/../lib.sh"
setup
T=${T:-40}
lb ipvsadm --set "$T" "$T" "$T"
modprobe -q nf_tables
service $SVC
service "$SVC6"
eq "the option is on" "$(cat /sys/module/ip_vs_mhs/parameters/express)" Y

count_routed
# Segments that IPVS has counted for a service.
counted() { lb ipvsadm -Ln --stats --exact | awk -v svc="$1" '$2 == svc { print $3, $4 }'; }

# The first ones have IPVS find the routes.
short 40 >/dev/null
short 40 --vip $VIP6 >/dev/null
for family in 4 6; do
	vip=$VIP svc=$SVC
	((family == 4)) || vip=$VIP6 svc=$SVC6
	before=$(routed)
	nap 3
	read -r conns packets < <(counted "$svc")
	result=$(short 200 --vip $vip --first 1000)
	eq "IPv$family: every connection is answered, no entry" \
		"$(jq .answered <<<"$result") $(entries)" "200 0"
	between "IPv$family: share of the first server" "$(jq .servers.rs1 <<<"$result")" 20 85
	eq "IPv$family: no packet was routed" $(($(routed) - before)) 0
	all_counted() {
		local more all
		read -r more all < <(counted "$svc")
		((more - conns == 200 && all - packets >= 800))
	}
	ok "IPv$family: new flows and packets are counted" wait_for 10 all_counted
done

# A hop is counted, and a packet of nobody is not forwarded.
for n in 1 2 3 4; do
	in_ns rs$n nft -f - <<-NFT
		table inet hops {
			counter one { }
			counter other { }
			counter martian { }
			chain pre {
				type filter hook prerouting priority raw;
				ip saddr 127.0.0.0/8 iif eth0 counter name martian
				ip daddr $VIP tcp dport 80 ip ttl 63 counter name one
				ip daddr $VIP tcp dport 80 ip ttl != 63 counter name other
				ip6 daddr $VIP6 tcp dport 80 ip6 hoplimit 63 counter name one
				ip6 daddr $VIP6 tcp dport 80 ip6 hoplimit != 63 counter name other
			}
		}
	NFT
done
hops() {
	for n in 1 2 3 4; do in_ns rs$n nft -j list counters; done |
		jq -s "[.[].nftables[].counter | select(.name == \"$1\").packets] | add"
}
eq "40 connections" "$(short 20 --first 500 | jq .answered) $(short 20 --first 500 --vip $VIP6 | jq .answered)" "20 20"
ok "a hop is counted" test "$(hops one)" -ge 160
ok "packets from 127.0.0.0/8 are sent" in_ns client python3 "$HERE/craft.py" martians 20
nap 1
eq "of each packet; and none is from 127.0.0.0/8" "$(hops other) $(hops martian)" "0 0"

# The last hop: who sent it is told.
told() { in_ns client nstat -asz IcmpInTimeExcds Icmp6InTimeExcds | awk '/TimeExcds/ { n += $2 } END { print n }'; }
before=$(told)
hop() { in_ns client python3 -c '
import socket, sys
v6 = ":" in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
s.setsockopt(*((socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1) if v6 else (socket.IPPROTO_IP, socket.IP_TTL, 1)))
s.settimeout(2)
try: s.connect((sys.argv[1], 80)); print("connected")
except OSError: print("no")
' "$1"; }
eq "IPv4, last hop: not forwarded" "$(hop $VIP)" no
ok "IPv4, last hop: told so" test "$(told)" -gt "$before"
before=$(told)
eq "IPv6, last hop: not forwarded" "$(hop $VIP6)" no
ok "IPv6, last hop: told so" test "$(told)" -gt "$before"

# Too large for the way to the servers: the client learns it, and what it sends gets there.
upload() { head -c 300000 /dev/zero | in_ns client curl -s -m 60 --data-binary @- "http://$1/"; }
ok "a large upload comes through" grep -q rs <<<"$(upload $VIP)"
for n in 1 2 3 4; do
	ip -n lb route add 10.0.0.1$n/32 dev eth0 mtu 1300
	ip -n lb -6 route add fd00::1$n/128 dev eth0 mtu 1300
done
ok "IPv4, a smaller MTU: so it does" grep -q rs <<<"$(upload $VIP)"
ok "IPv6, a smaller MTU: so it does" grep -q rs <<<"$(upload "[$VIP6]")"
ok "a smaller MTU: the client was told" grep -q 'mtu 1300' <<<"$(ip -n client route show cache; ip -n client route get $VIP; ip -n client -6 route get $VIP6)"
for n in 1 2 3 4; do
	ip -n lb route del 10.0.0.1$n/32
	ip -n lb -6 route del fd00::1$n/128
done

# The way to the servers is closed, and opened.
short 60 --first 600 >/dev/null
for n in 1 2 3 4; do ip -n lb route add unreachable 10.0.0.1$n/32; done
eq "servers that cannot be reached any more: nothing is forwarded" \
	"$(short 20 --first 600 --timeout 3 | jq .answered)" 0
for n in 1 2 3 4; do ip -n lb route del unreachable 10.0.0.1$n/32; done
eq "servers can be reached again" "$(short 20 --first 600 | jq .answered)" 20

# An address that is not of this host is no business of ours, though there is a service.
ip -n lb addr del $VIP/32 dev eth0
nap 3
before=$(counted $SVC)
eq "not this host's address: not forwarded" "$(short 5 --timeout 3 | jq .answered)" 0
ip -n lb -6 addr del $VIP6/128 dev eth0
eq "not this host's IPv6 address: not forwarded" "$(short 5 --vip $VIP6 --timeout 3 | jq .answered)" 0
nap 3
eq "not this host's address: not counted" "$(counted $SVC)" "$before"
ip -n lb addr add $VIP/32 dev eth0
# An IPv6 address is kept while its device is down, if that is asked for, but belongs to nobody then.
modprobe dummy numdummies=0
ip -n lb link add kept type dummy
ip -n lb link set kept addrgenmode none
lb sysctl -qw net.ipv6.conf.kept.keep_addr_on_down=1
ip -n lb link set kept up
ip -n lb -6 addr add $VIP6/128 dev kept nodad
ip -n client neigh replace $VIP6 dev eth0 lladdr "$(ip -n lb -j link show eth0 | jq -r '.[].address')"
eq "an address of another device: forwarded" "$(short 20 --vip $VIP6 | jq .answered)" 20
ip -n lb link set kept down
ok "an address of a device that is down is kept" grep -q $VIP6 <<<"$(ip -n lb -6 addr show dev kept)"
eq "an address of a device that is down: not forwarded" \
	"$(short 5 --vip $VIP6 --timeout 3 | jq .answered)" 0
ip -n lb link del kept
# Nor is one that is routed to without being there, once it is not any more.
ip -n lb -6 route add local $VIP6/128 dev lo
eq "an address without a device: forwarded" "$(short 20 --vip $VIP6 | jq .answered)" 20
ip -n lb -6 route del local $VIP6/128 dev lo
eq "an address without a device, not any more: not forwarded" \
	"$(short 5 --vip $VIP6 --timeout 3 | jq .answered)" 0
ip -n client neigh del $VIP6 dev eth0
ip -n lb addr add $VIP6/128 dev eth0 nodad preferred_lft 0
eq "this host's again" "$(short 20 | jq .answered) $(short 20 --vip $VIP6 | jq .answered)" "20 20"

# Neighbours that have to be found first.
ip -n lb neigh flush dev eth0
eq "no neighbour is known: every connection is answered" "$(short 60 | jq .answered)" 60

# Changes under load are what they always are.
start_long 60 --first 2000
home=$(long_status .servers)
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
lb ipvsadm -d -t $SVC -r 10.0.0.12:80
eq "servers drained and deleted: no connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
eq "new connections go to the others" \
	"$(short 60 --first 4000 | jq -c '[.answered, .servers.rs1, .servers.rs2]')" "[60,null,null]"
stop_long

# What somebody else has, too, is not changed under his eyes: he sees packets as they came.
lb python3 - "$WORK/heard" <<-'PYTHON' &
	import socket, sys, time
	ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
	ears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
	ears.bind(("eth0", 0x0800))
	ears.settimeout(5)
	hops, end = {}, time.monotonic() + 60
	print("listening", file=open(sys.argv[1], "w"))
	try:
	    while time.monotonic() < end:
	        packet, (_, _, kind, _, _) = ears.recvfrom(2048)
	        if kind == socket.PACKET_HOST and packet[23] == 6 and packet[36:38] == b"\0P":
	            hops[packet[22]] = hops.get(packet[22], 0) + 1
	except TimeoutError:
	    pass
	print(len(hops), max(hops), hops[max(hops)] >= 240, file=open(sys.argv[1], "w"))
PYTHON
listener=$!
ok "a packet socket listens" wait_for 20 grep -qs listening "$WORK/heard"
before=$(routed)
eq "a packet socket: every connection is answered" "$(short 60 --first 5000 | jq .answered)" 60
ok "a packet socket: by the long way" test $(($(routed) - before)) -ge 180
wait $listener
eq "a packet socket: it saw all as they came" "$(cat "$WORK/heard")" "1 64 True"

# A VRF routes by a table of its own: what comes in there is no business of the service outside.
modprobe vrf
ip -n lb link add red type vrf table 10
ip -n lb link set red up
ip netns add other
ip -n other link add eth0 type veth peer name leg netns lb
configure other 10.9.0.2 fd09::2 "
	route add $VIP/32 via 10.9.0.1
	route add $VIP6/128 via fd09::1"
ip -n lb link set leg master red up
ip -n lb addr add 10.9.0.1/24 dev leg
for family in 4 6; do
	ip -n lb -$family rule add pref 32765 table local
	ip -n lb -$family rule del pref 0
	ip -n lb -$family route add unreachable default metric 9999 table 10
done
ip -n lb -6 addr add fd09::1/64 dev leg nodad
eq "a VRF can be reached" "$(in_ns other ping -c 3 -i 0.2 -q 10.9.0.1 | grep -c ' 3 received')" 1
short 20 >/dev/null
short 20 --vip $VIP6 >/dev/null
nap 3
before=$(counted $SVC)$(counted "$SVC6")
for url in $VIP "[$VIP6]"; do
	for ((n = 0; n < 5; n++)); do in_ns other curl -s -m 1 "http://$url/" >/dev/null; done
done
nap 3
eq "from a VRF: nothing is forwarded" "$(counted $SVC)$(counted "$SVC6")" "$before"
eq "outside of it as ever" "$(short 20 | jq .answered) $(short 20 --vip $VIP6 | jq .answered)" "20 20"
