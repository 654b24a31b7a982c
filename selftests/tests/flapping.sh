#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# One server of ten flaps for several session timeouts, by weight and by being
# deleted and added, under live connections and new ones. No connection breaks;
# only clients whose slots differ between the two states of that server ever get
# an entry; and the slots of another server, drained for good at the beginning,
# are merged in time, also those whose new server changes all the time. Fails
# when a change puts the deadline of a slot off that is unstable already, when a
# slot that comes back stays unstable, or when flows lose their server on the way.

SERVERS=10
. "$(dirname "$0")/../lib.sh"
setup
# A round of connections takes 20 s on a slow kernel that checks itself.
T=${T:-$([[ ${MHS_GUEST-} == debug ]] && echo 60 || echo 20)}
modprobe -q nf_tables
lb ipvsadm --set "$T" "$T" "$T"
VIP2=10.0.0.101
ip -n lb addr add $VIP2/32 dev eth0
for n in $(seq $SERVERS); do ip -n rs"$n" addr add $VIP2/32 dev lo; done

# table WEIGHT1 WEIGHT2: who gets whom when servers 1 and 2 have these weights, as JSON; from a
# service of its own, with another address and thus the same table.
table() {
	local n weight
	{
		echo "-A -t $VIP2:80 -s $SCHED"
		for n in $(seq $SERVERS); do
			weight=1
			((n > 2)) || weight=${!n}
			echo "-a -t $VIP2:80 -r 10.0.0.$((10 + n)):80 -g -w $weight"
		done
	} | lb ipvsadm -R
	settle
	{
		short 400 --clients --vip $VIP2
		short 60 --clients --vip $VIP2 --first 5000
	} | jq -cs 'map(.clients) | add'
	lb ipvsadm -D -t $VIP2:80
}
all=$(table 1 1)
up=$(table 1 0)
down=$(table 0 0)
# Who belongs where: clients of the drained server that have nothing to do with the one that flaps;
# those that have; and all that may ever get an entry.
list() { jq -rs "[.[0] as \$all | .[1] as \$up | .[2] as \$down | \$all | keys[] | select($1)] | .[]" <<<"$all $up $down" | sort; }
list '$all[.] == "rs2" and $up[.] == $down[.]' >"$WORK/settling"
list '$up[.] != $down[.]' >"$WORK/flapping"
list '$all[.] == "rs2" and $up[.] != $down[.]' >"$WORK/restless"
list '$all[.] != $up[.] or $all[.] != $down[.]' >"$WORK/moving"
between "clients of the server to be drained" "$(wc -l <"$WORK/settling")" 15 90
between "clients of slots that flap" "$(wc -l <"$WORK/flapping")" 15 90
between "clients of both" "$(wc -l <"$WORK/restless")" 1 40
eq "no entry to learn that" "$(entries)" 0

server() { lb ipvsadm "$1" -t $SVC -r 10.0.0.$((10 + $2)):80 "${@:3}"; }
# clients FILE: the clients of a list of flows.
clients() { sed 's/:.*//' "$1" | sort -u; }
# beyond FLOWS CLIENTS: how many flows are not of these clients.
beyond() { clients "$1" | comm -23 - "$2" | wc -l; }

# What goes to the old server of a slot shows who that is. Packets out of nothing do.
in_ns rs2 nft -f - <<-NFT
	table inet seen {
		set clients { type ipv4_addr; size 1024; flags dynamic; }
		chain pre {
			type filter hook prerouting priority raw;
			ip daddr $VIP ip dscp 1 add @clients { ip saddr }
		}
	}
NFT
port=3000
# strays: a packet of each client, for a flow of its own.
strays() {
	port=$((port + 1))
	in_ns rs2 nft flush set inet seen clients
	in_ns client python3 "$HERE/kinds.py" 400 $port ack
	nap 0.5
}
# still CLIENTS: how many of these clients have slots whose old server is server 2, by the last packets.
still() {
	in_ns rs2 nft -j list set inet seen clients |
		jq -r '.nftables[].set.elem // [] | .[]' | sort | comm -12 - "$1" | wc -l
}

service $SVC
start_long 60 --first 5000
home=$(long_status .servers)
eq "steady: no connection is broken, no entry" "$(long_status .broken) $(entries)" "0 0"

# Slots that were not used lately have nothing to wait for.
short 100 >/dev/null
strays
eq "steady: those clients are on that server" "$(still "$WORK/restless")" "$(wc -l <"$WORK/restless")"
server -e 2 -g -w 0
began=$SECONDS
flap() {
	while [[ ! -e $WORK/calm ]]; do
		server -e 1 -g -w 0
		nap 1
		server -e 1 -g -w 1
		nap 1
		server -d 1
		nap 1
		server -a 1 -g
		nap 1
	done
}
flap 9>&- &
flapping=$!
strays
eq "flapping: and flows that are not new stay there" \
	"$(still "$WORK/restless")" "$(wc -l <"$WORK/restless")"

# Rounds of new connections, by the same clients. What is due after T has been done some time later.
: >"$WORK/early"
: >"$WORK/late"
rounds=0 late=0 most=0 answered=0
while ((SECONDS - began < T * 9 / 2 || late < 3)); do
	due=$((SECONDS - began > T * 3 / 2))
	flows >"$WORK/before"
	# All slots are in use, or they would be merged for that.
	stray 400 >/dev/null
	# Counted before what may end the loop: nothing, instead of a number.
	rounds=$((rounds + 1)) late=$((late + due))
	answered=$((answered + $(short 100 | jq .answered)))
	name=early
	((!due)) || name=late
	new_flows "$WORK/before" >>"$WORK/$name"
	now=$(entries)
	((now <= most)) || most=$now
	nap 2
done
strays
echo "# $rounds rounds of 100 connections, $most entries at most"
touch "$WORK/calm"
wait $flapping

eq "flapping: every new connection is answered" "$answered" $((rounds * 100))
eq "flapping: no live connection breaks or moves" \
	"$(long_status .broken) $(long_status .servers)" "0 $home"
cat "$WORK/early" "$WORK/late" <(flows) | sort -u >"$WORK/ever"
eq "entries of clients whose slots never moved" "$(beyond "$WORK/ever" "$WORK/moving")" 0
flapped=$(clients "$WORK/ever" | comm -12 - "$WORK/flapping" | wc -l)
between "clients of slots that flap got entries" "$flapped" 2 160
before=$(clients "$WORK/early" | comm -12 - "$WORK/settling" | wc -l)
between "before T: clients of the drained server got entries" "$before" 2 160
eq "after T: they got none, nor did any but those of slots that flap" \
	"$(beyond "$WORK/late" "$WORK/flapping")" 0

eq "after T: all their slots are merged" "$(still <(sort -u "$WORK/settling" "$WORK/restless"))" 0

# Calm: what flapped last was put back.
nap $((T * 3 / 2))
flows >"$WORK/before"
eq "calm: every new connection is answered" "$(short 100 | jq .answered)" 100
eq "calm: no new entry" "$(new_flows "$WORK/before" | wc -l)" 0
eq "calm: no live connection is broken" "$(long_status .broken) $(long_status .servers)" "0 $home"
stop_long
