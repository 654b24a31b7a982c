#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which of the two tables a packet goes by, and whether it makes an entry, for
# each kind of packet and every client: crafted packets, and who receives them.
# The new table is known from a second service with the same servers, made when
# nothing moves. Fails when a kind of packet goes by the wrong table, or makes an
# entry that it should not, or none.

. "$(dirname "$0")/../lib.sh"
setup
modprobe sctp
modprobe -q nf_tables
CLIENTS=60
KINDS=(syn ack rst error init heartbeat abort datagram follow_ack follow_error)
VIP2=10.0.0.101
ip -n lb addr add $VIP2/32 dev eth0
for n in 1 2 3 4; do
	ip -n rs$n addr add $VIP2/32 dev lo
	for ip in $VIP $VIP2; do
		serve $n udp $ip 53
		serve $n sctp $ip 99
	done
	# Who receives what of whom.
	{
		echo "table inet seen {"
		for kind in "${KINDS[@]}"; do
			echo "set $kind { type ipv4_addr; size 1024; flags dynamic; }"
		done
		echo "chain pre { type filter hook prerouting priority raw;"
		for i in "${!KINDS[@]}"; do
			echo "ip daddr $VIP ip dscp $((i + 1)) add @${KINDS[i]} { ip saddr };"
		done
		echo "}"
		echo "}"
	} | in_ns rs$n nft -f -
done

# services ADDRESS WEIGHT...: TCP, SCTP and UDP with servers of these weights.
services() {
	local ip=$1 svc n
	shift
	for svc in "-t $ip:80" "--sctp-service $ip:99" "-u $ip:53"; do
		echo "-A $svc -s $SCHED"
		for n in 1 2 3 4; do echo "-a $svc -r 10.0.0.1$n:${svc##*:} -g -w ${!n}"; done
	done | lb ipvsadm -R
	settle
}
# table PROTO PORT ADDRESS: who gets whom, as JSON.
table() { short $CLIENTS --clients --proto "$1" --port "$2" --vip "$3" | jq -cS .clients; }

services $VIP 1 1 1 1
services $VIP2 0 3 1 1
tcp=$(table tcp 80 $VIP) tcp2=$(table tcp 80 $VIP2)
sctp=$(table sctp 99 $VIP) sctp2=$(table sctp 99 $VIP2)
udp=$(table udp 53 $VIP) udp2=$(table udp 53 $VIP2)
eq "every client is answered, no entry" \
	"$(jq -cs 'map(length) | unique' <<<"$tcp $tcp2 $sctp $sctp2 $udp $udp2") $(entries)" \
	"[$CLIENTS] 0"
# UDP stays with a server while that is live; server 1 is not going to be.
udp_home=$(jq -cs '.[1] as $new | .[0] | with_entries(if .value == "rs1" then .value = $new[.key] else . end)' \
	<<<"$udp $udp2")

# look: by kind of packet who received one of whom, for now.
look() {
	local n
	for n in 1 2 3 4; do in_ns rs$n nft -j list table inet seen >"$WORK/rs$n/seen"; done
	jq -n '[inputs | (input_filename | split("/")[-2]) as $name | .nftables[].set | values |
		{(.name): ([.elem // [] | .[] | {(.): $name}] | add // {})}] | reduce .[] as $of ({}; . * $of)' \
		"$WORK"/rs?/seen >"$WORK/seen"
}
# seen KIND: of that kind, as JSON.
seen() { jq -cS ".$1" "$WORK/seen"; }
all_seen() {
	look
	[[ $(jq -c '[.[] | length] | unique' "$WORK/seen") == "[$CLIENTS]" ]]
}
# wrong GOT WANTED: how many clients have another server than wanted.
wrong() {
	jq -cs '.[0] as $got | [.[1] | to_entries[] | select($got[.key] != .value)] | length' <<<"$1 $2"
}

port=3000
# send: packets of each kind of each client, each a flow of its own.
send() {
	local n kind
	port=$((port + 100))
	for n in 1 2 3 4; do
		for kind in "${KINDS[@]}"; do echo "flush set inet seen $kind"; done | in_ns rs$n nft -f -
	done
	in_ns client python3 "$HERE/kinds.py" $CLIENTS $port "${KINDS[@]}" &
	# The entry of an INIT lives for 4 s.
	while kill -0 $! 2>/dev/null; do flows && nap 0.5; done >"$WORK/flows"
	wait_for 10 all_seen || true
	flows | sort -u - "$WORK/flows" -o "$WORK/flows"
}
# check TEXT KIND TABLE ENTRIES: where those of a kind went, and how many entries they made.
check() {
	local i
	for i in "${!KINDS[@]}"; do [[ ${KINDS[i]} != "$2" ]] || break; done
	eq "$1" "$(wrong "$(seen "$2")" "$3")" 0
	eq "$1: entries" "$(grep -c ":$((port + i)) $VIP:" "$WORK/flows")" "$4"
}
# What the clients' kernels say to the answers would end flows too soon to count them.
in_ns client nft -f - <<-NFT
	table inet silent {
		chain out {
			type filter hook output priority 0;
			ip daddr $VIP tcp flags rst drop
			ip daddr $VIP ip protocol sctp drop
			ip daddr $VIP ip protocol icmp drop
		}
	}
NFT

send
check "stable: SYN" syn "$tcp" 0
check "stable: ACK" ack "$tcp" 0
check "stable: RST" rst "$tcp" 0
check "stable: ICMP error" error "$tcp" 0
check "stable: INIT" init "$sctp" 0
check "stable: HEARTBEAT" heartbeat "$sctp" 0
check "stable: ABORT" abort "$sctp" 0
check "stable: datagram" datagram "$udp" 0
check "stable: ACK after SYN" follow_ack "$tcp" 0
check "stable: ICMP error after SYN" follow_error "$tcp" 0

# Server 1 drained, server 2 heavier.
for svc in "-t $VIP:80" "--sctp-service $VIP:99" "-u $VIP:53"; do
	echo "-e $svc -r 10.0.0.11:${svc##*:} -g -w 0"
	echo "-e $svc -r 10.0.0.12:${svc##*:} -g -w 3"
done | lb ipvsadm -R
settle
# Of what moves some leaves the drained server, and some another.
between "TCP: clients whose slots move" "$(wrong "$tcp" "$tcp2")" 10 50
between "SCTP: clients whose slots move" "$(wrong "$sctp" "$sctp2")" 10 50
between "UDP: clients whose slots move" "$(wrong "$udp" "$udp2")" 10 50
between "UDP: those that leave a live server" "$(wrong "$udp_home" "$udp2")" 3 50

send
check "moving: SYN to the new server" syn "$tcp2" "$(wrong "$tcp" "$tcp2")"
check "moving: ACK to the old one" ack "$tcp" "$(wrong "$tcp" "$tcp2")"
check "moving: RST to the old one" rst "$tcp" 0
check "moving: ICMP error to the old one" error "$tcp" 0
check "moving: INIT to the new server" init "$sctp2" "$(wrong "$sctp" "$sctp2")"
check "moving: HEARTBEAT to the old one" heartbeat "$sctp" "$(wrong "$sctp" "$sctp2")"
check "moving: ABORT to the old one" abort "$sctp" 0
check "moving: datagram to the old one while that is live" datagram "$udp_home" \
	"$(wrong "$udp" "$udp2")"
# Where the SYN went, by its entry.
check "moving: ACK after SYN" follow_ack "$tcp2" 0
check "moving: ICMP error after SYN" follow_error "$tcp2" 0

# A datagram is a flow of its own, and the only one.
lb ipvsadm -E -u $VIP:53 -s $SCHED -o
send
check "moving, -o: datagram to the new server" datagram "$udp2" 0
