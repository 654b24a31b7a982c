#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tunnels of every kind and family without an entry. Fails when one of them makes
# entries, does not get through, or breaks connections as servers change.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"

tunnel_ends

# tunnel NAME SERVICE SERVERS OPTIONS...
tunnel() {
	local name=$1 svc=$2 net=$3 n result vip=$VIP
	shift 3
	[[ $svc == \[* ]] && vip=$VIP6
	lb ipvsadm -C
	lb ipvsadm -A -t "$svc" -s $SCHED
	for n in 1 2 3 4; do
		lb ipvsadm -a -t "$svc" -r "${net/N/$n}:80" -i "$@" || {
			ok "$name: servers are added" false
			return
		}
	done
	settle
	result=$(short 60 --vip $vip --timeout 10)
	eq "$name: every connection is answered, by all servers, without an entry" \
		"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[60,4] 0"
}

tunnel "IPIP" $SVC 10.0.0.1N
tunnel "GUE" $SVC 10.0.0.1N --tun-type gue --tun-port 5555 --tun-nocsum
tunnel "GUE, checksum" $SVC 10.0.0.1N --tun-type gue --tun-port 5555 --tun-csum
tunnel "GUE, remote checksum" $SVC 10.0.0.1N --tun-type gue --tun-port 5555 --tun-remcsum
tunnel "GRE" $SVC 10.0.0.1N --tun-type gre --tun-nocsum
# Who gets checksums must be told to expect them.
for n in 1 2 3 4; do
	ip -n rs$n tunnel add g1 mode gre local 10.0.0.1$n remote 10.0.0.1 csum
	ip -n rs$n link set g1 up
	in_ns rs$n sysctl -qw net.ipv4.conf.g1.rp_filter=0
done
tunnel "GRE, checksum" $SVC 10.0.0.1N --tun-type gre --tun-csum
tunnel "IPv6 in IPv6" "$SVC6" '[fd00::1N]'
tunnel "IPv4 in IPv6" $SVC '[fd00::1N]'
tunnel "IPv6 in IPv4" "$SVC6" 10.0.0.1N

# Direct routing and tunnels in one service; from one to the other under load.
lb ipvsadm -C
service $SVC
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -i
start_long 40 --first 1000
eq "some by tunnel: no entry" "$(entries)" 0
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -i
lb ipvsadm -e -t $SVC -r 10.0.0.12:80 -g
eq "another method: no connection breaks, no entry" "$(long_status .broken) $(entries)" "0 0"
lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -i -w 0
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
eq "drain and delete: no connection breaks" "$(long_status .broken)" 0
between "drain and delete: flows of moving slots have entries" "$(entries)" 1 40
stop_long
