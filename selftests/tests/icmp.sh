#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# ICMP errors reach the server that the flow they are about is on, whatever the
# slot and without an entry. Path MTU discovery depends on it: behind a router
# with a small MTU a transfer hangs if the router's word does not get through.
# Fails when errors are left to the balancer itself, or make entries.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"

# A client behind a router:
#   far (10.2.0.2, fd02::2) ---- MTU 1300 ---- router (10.2.0.1; 10.0.0.3) ---- sw
ip netns add router
ip netns add far
plug router 10.0.0.3 fd00::3
ip link add eth1 netns router type veth peer name eth0 netns far
in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for ns in router far; do
	dev=eth1
	[[ $ns == far ]] && dev=eth0
	ip -n $ns link set $dev mtu 1300 up
	ip -n $ns link set lo up
done
ip -n router addr add 10.2.0.1/24 dev eth1
ip -n router addr add fd02::1/64 dev eth1 nodad
ip -n far addr add 10.2.0.2/24 dev eth0
ip -n far addr add fd02::2/64 dev eth0 nodad
# What the far client offers does not betray the small MTU.
ip -n far route add default via 10.2.0.1 advmss 1460
ip -n far -6 route add default via fd02::1 advmss 1440
for ns in lb rs1 rs2 rs3 rs4; do
	ip -n $ns route add 10.2.0.0/24 via 10.0.0.3
	ip -n $ns -6 route add fd02::/64 via fd00::3
	in_ns $ns sysctl -qw net.ipv4.tcp_mtu_probing=0
	in_ns $ns ethtool -K eth0 tso off gso off >/dev/null
done
in_ns router ethtool -K eth0 gro off >/dev/null
for n in 1 2 3 4; do
	head -c 300000 /dev/zero >"$WORK/rs$n/big"
done

# fetch VIP COUNT: large transfers to the far client; prints how many are complete.
fetch() {
	local n whole=0 size
	for n in $(seq "$2"); do
		size=$(in_ns far curl -s -m 20 -o - "http://$1/big" | wc -c)
		if [[ $size == 300000 ]]; then whole=$((whole + 1)); fi
	done
	echo $whole
}
forget() {
	for n in 1 2 3 4; do
		ip -n rs$n route flush cache
		ip -n rs$n -6 route flush cache
	done
}

# received: ICMP messages that the servers have got.
received() {
	for n in 1 2 3 4; do in_ns rs$n nstat -asz IcmpInMsgs; done |
		awk '$1 == "IcmpInMsgs" { n += $2 } END { print n }'
}
arrived() { (($(received) - before >= $1)); }

service $SVC
service "$SVC6"
wait_for 10 in_ns far ping -c 1 -W 1 10.0.0.11 >/dev/null
eq "IPv4: transfers through the small MTU, no entry" "$(fetch $VIP 4) $(entries)" "4 0"
eq "IPv6: transfers through the small MTU, no entry" "$(fetch [$VIP6] 4) $(entries)" "4 0"

# With the slot moving: the transfer's own flow is pinned, errors make no entry.
forget
for n in 1 2 3 4; do lb ipvsadm -e -t $SVC -r 10.0.0.1$n:80 -g -w 0; done
lb ipvsadm -a -t $SVC -r 10.0.0.15:80 -g -w 0
lb ipvsadm -e -t $SVC -r 10.0.0.13:80 -g -w 1
eq "moving slots: transfers through the small MTU" "$(fetch $VIP 4)" 4

# The server behind a tunnel.
lb ipvsadm -C
forget
modprobe ipip
for n in 1 2 3 4; do
	ip -n rs$n link set tunl0 up
	in_ns rs$n sysctl -qw net.ipv4.conf.tunl0.rp_filter=0
done
lb ipvsadm -A -t $SVC -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -i; done
settle
eq "tunnel: transfers through the small MTU" "$(fetch $VIP 4)" 4

# The other way: what a client sends is too large for the tunnel.
head -c 200000 /dev/zero >"$WORK/upload"
size=$(in_ns client curl -s -m 20 -o /dev/null -w '%{http_code} %{size_upload}' \
	--data-binary "@$WORK/upload" "http://$VIP/")
eq "tunnel: large packets of a client" "$size" "200 200000"

# And larger than a router between the balancer and the servers takes: it tells the balancer, which
# has no entry to find the flow by.
in_ns router sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
for n in 1 2 3 4; do
	ip -n router route add 10.0.0.1$n/32 dev eth0 mtu lock 1300
	ip -n lb route add 10.0.0.1$n/32 via 10.0.0.3
done
modprobe -q ip_gre && modprobe -q fou
for n in 1 2 3 4; do
	ip -n rs$n link set gre0 up
	in_ns rs$n sysctl -qw net.ipv4.conf.gre0.rp_filter=0
	in_ns rs$n ip fou add port 5555 gue
done
# through TEXT OPTIONS...: an upload through the tunnel and the router.
through() {
	local text=$1 result
	shift
	lb ipvsadm -C
	lb ip route flush cache
	in_ns client ip route flush cache
	lb ipvsadm -A -t $SVC -s $SCHED
	for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -i "$@"; done
	settle
	flows >"$WORK/before"
	result=$(in_ns client curl -s -m 20 -o /dev/null -w '%{http_code} %{size_upload}' \
		--data-binary "@$WORK/upload" "http://$VIP/")
	eq "$text through a small MTU: large packets of a client" "$result" "200 200000"
	eq "$text through a small MTU: no new entry" "$(new_flows "$WORK/before" | wc -l)" 0
}
through IPIP
through GRE --tun-type gre --tun-nocsum
through GUE --tun-type gue --tun-port 5555 --tun-nocsum
for n in 1 2 3 4; do ip -n lb route del 10.0.0.1$n/32; done

# Errors of every kind, counted where they arrive. Entries of the transfers above live on for T.
lb ipvsadm -C
wait_for $((T * 10)) no_entries
service $SVC
for kind in "3 0" "3 1" "3 4" "11 0"; do
	read -r type code <<<"$kind"
	before=$(received)
	in_ns client python3 "$HERE/icmp.py" "$type" "$code" 30
	wait_for 5 arrived 30 || true
	eq "type $type code $code: all reach a server" "$(($(received) - before))" 30
done
eq "no entry" "$(entries)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0
before=$(received)
in_ns client python3 "$HERE/icmp.py" 3 1 30
wait_for 5 arrived 30 || true
eq "moving slots: all reach a server" "$(($(received) - before))" 30
eq "moving slots: no entry" "$(entries)" 0
