#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A client that picks the addresses and ports of its flows so that all are in one
# slot: with the key of the hash and without, by looking who answers, and by what
# steers the kernel's own mh and sh. What that does to the server, to everybody
# else and to the table of entries, while slots are stable and while they move.
# Fails when the key or a part of the client is left out of the hash, when a
# stable slot makes an entry, or a moving one more than one for each flow. With
# COUNTED=1, in a guest whose clock counts instructions (scripts/guest --icount),
# also when packets cost more because they are all in one slot.

. "$(dirname "$0")/../lib.sh"
# Flows in one slot, twice; flows of anybody, not more than slots; connections to look who answers.
FLOWS=${FLOWS:-$([[ ${MHS_GUEST-} == stock ]] && echo 64 || echo 256)}
MANY=${MANY:-8192}
TRIES=${TRIES:-400}
SLOT=1
PUBLIC=d308a385886a3f24447370032e8a1913
OWN=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
setup
skew() { python3 "$HERE/skew.py" "$@"; }
MAC=$(ip -n lb -j link show eth0 | jq -r '.[].address')

# The servers count what skew.py sends, and do not answer.
for n in 1 2 3 4; do
	in_ns rs$n nft -f - <<-NFT
		table inet skew {
			chain in {
				type filter hook prerouting priority -300;
				ip dscp cs1 counter drop
			}
		}
	NFT
done
at_server() {
	in_ns "rs$1" nft -j list table inet skew |
		jq '[.nftables[].rule.expr // [] | .[].counter.packets // empty] | add'
}

# attack FILE FLAGS [FIRST COUNT]: sends SENT segments to PORT. Then GOT is what each server got, SUM
# that of all, MOST that of who got most, COST the nanoseconds from the ring to the server, each.
PORT=80 BEFORE=(0 0 0 0)
attack() {
	local n now
	SENT=${4:-$(($(stat -c %s "$WORK/$1") / 6))}
	COST=$(PORT=$PORT in_ns client python3 "$HERE/skew.py" send "$WORK/$1" "$2" "$MAC" "${@:3}" | jq .nanoseconds)
	nap 0.2
	SUM=0 MOST=0 GOT=()
	for n in 0 1 2 3; do
		now=$(at_server $((n + 1)))
		GOT+=($((now - BEFORE[n])))
		BEFORE[n]=$now
		SUM=$((SUM + GOT[n]))
		((GOT[n] <= MOST)) || MOST=${GOT[n]}
	done
}

# fall FILE KEY FILTER: where the flows should go.
fall() { lb python3 "$HERE/skew.py" fall "$WORK/$1" "$2" | jq -r "$3"; }
# settled KEY: slots that nobody used have.
settled() { (($(fall sums "$1" .unstable_slots) < SIZE / 5)); }

# made FILE [STATE]: the entries of its flows at PORT, and LIFE, the most seconds that one has left.
declare -A NET=([picked]=AC1[0-3] [sums]=AC1[4-7] [any]=AC1[89AB] [more]=AC1[C-F])
made() {
	lb awk -v net="^${NET[$1]}" -v port="$(printf %04X $PORT)" -v state="${2-}" '
		$2 ~ net && $5 == port && (!state || $8 == state) { n++; life = $9 > life ? $9 : life }
		END { print n + 0, life + 0 }' /proc/net/ip_vs_conn >"$WORK/made"
	read -r MADE LIFE <"$WORK/made"
}

# row ATTACK SCHEDULER SLOTS: for the table of scripts/hostile.
row() {
	[[ ! ${COUNTED-} ]] || return 0
	((MADE)) || LIFE=0
	jq -cn --arg attack "$1" --arg scheduler "$2" --arg slots "$3" --argjson sent "$SENT" --argjson reached $SUM \
		--argjson most $MOST --argjson entries "$MADE" --argjson life "$LIFE" \
		'{$attack, $scheduler, $slots, $sent, $reached, $most, $entries, $life}' | sed 's/^/# /'
}

# others TEXT FIRST: those who mean no harm.
others() {
	eq "$1: who comes is answered" "$(short 20 --first "$2" | jq .answered)" 20
	eq "$1: no live connection breaks or moves" "$(long_status '"\(.broken) \(.servers)"')" "0 $home"
}
live() {
	start_long 40 --first "$1"
	home=$(long_status '.servers | tostring')
}

picked=$(skew pick $((2 * FLOWS)) "$WORK/picked" 172.16.0.1 $PUBLIC 16381 $SLOT)
skew sums "$MANY" "$WORK/sums" 172.20.0.1 >/dev/null
skew ports 64000 "$WORK/ports" 172.20.0.1 >/dev/null
skew any "$MANY" "$WORK/any" 172.24.0.0 >/dev/null
skew any "$MANY" "$WORK/more" 172.28.0.0 >/dev/null
# Who is in that slot by chance.
skew pick 8 "$WORK/neighbours" 10.1.240.1 $PUBLIC 16381 $SLOT >/dev/null
skew pick 8 "$WORK/newcomers" 10.1.250.1 $PUBLIC 16381 $SLOT >/dev/null

# A key of one's own; the client knows the public one.
modprobe ip_vs_mhs hash_key="$OWN"
SIZE=$(cat /sys/module/ip_vs_mhs/parameters/table_size)
service $SVC -b flag-2
live 0
holds() { jq -en "$1" >/dev/null; }
# by_chance TEXT FILE: its flows go where the hash says, and that is anywhere.
by_chance() {
	local said
	attack "$2" S
	said=$(fall "$2" "$OWN" .)
	eq "$1: each server gets what the hash says" "${GOT[*]}" \
		"$(jq -r '[.servers["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"] // 0] | join(" ")' <<<"$said")"
	between "$1: none more than by chance" $MOST 0 "$(jq .bound <<<"$said")"
	ok "$1: nor any slot ($(jq '.fullest_slot' <<<"$said") at most)" holds "$said | .deviation | fabs < 8"
	made "$2"
	eq "$1: no entry" "$MADE" 0
}
by_chance "own key, picked by the public one" picked
row "picked by the public key, the service has its own" mhs stable
by_chance "own key, the same sum of address and port" sums
row "same sum of address and port" mhs stable

asked=$(in_ns client python3 "$HERE/skew.py" ask "$TRIES" "$WORK/asked" 10.1.200.1 rs2)
between "own key, picked by who answers: a quarter of those tried" "$(jq .flows <<<"$asked")" \
	$((TRIES / 8)) $((TRIES / 2))
attack asked S
eq "own key, picked by who answers: all reach that server" "${GOT[*]}" "0 $SENT 0 0"
between "own key, picked by who answers: in any of its slots" "$(fall asked "$OWN" .fullest_slot)" 1 8
MADE=$(entries)
eq "own key: no entry" "$MADE" 0
row "picked by who answered before" mhs stable
others "own key" 100

lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
ok "own key, moving: slots that nobody used settle" wait_for 20 settled "$OWN"
said=$(fall any "$OWN" .)
attack any S
eq "own key, moving: every packet reaches a server" $SUM "$SENT"
made any
eq "own key, moving: an entry for each flow of the $(jq .unstable_slots <<<"$said") slots that move" \
	"$MADE" "$(jq .unstable <<<"$said")"
# Six standard deviations.
ok "own key, moving: as many flows of all as slots" holds "$said | (.unstable_slots / $SIZE) as \$p
	| ($MADE / .flows - \$p | fabs) < 6 * (\$p * (1 - \$p) / .flows | sqrt)"
row "not picked: SYN" mhs "$(jq -r ".unstable_slots / $SIZE * 100 | round | \"\(.) % moving\"" <<<"$said")"
others "own key, moving" 200
stop_long
lb ipvsadm -C
wait_for 20 rmmod ip_vs_mhs

# The key that everybody knows.
modprobe ip_vs_mhs
service $SVC -b flag-2
live 1000
mkfifo "$WORK/stay"
in_ns client python3 "$HERE/skew.py" live "$WORK/neighbours" <"$WORK/stay" >"$WORK/stayed" &
neighbours=$!
exec 8>"$WORK/stay"
wait_for 20 grep -q open "$WORK/stayed"
attack picked S 0 "$FLOWS"
eq "public key: all are in one slot" "$(fall picked $PUBLIC .slots)" 1
eq "public key: all reach one server" "$MOST $SUM" "$SENT $SENT"
made picked
eq "public key: no entry" "$MADE" 0
row "picked by the key" mhs stable
one_address=$(fall ports $PUBLIC .fullest_slot)
between "public key: so many ports of one address are in one slot" "$one_address" 1 24
others "public key" 300

# least FILE FLAGS FIRST COUNT: the least that it costs; timers take their time, too.
least() {
	local least=
	for _ in 1 2 3 4 5; do
		attack "$@"
		((least && least <= COST)) || least=$COST
	done
	COST=$least
}
if [[ ${COUNTED-} ]]; then
	least picked A 0 "$FLOWS"
	one=$COST
	least more A 0 "$FLOWS"
	between "public key: per mille of the instructions of packets that are anywhere" $((one * 1000 / COST)) 970 1030
	echo "# {\"one_slot\":$one,\"anywhere\":$COST}"
	attack picked S 0 "$FLOWS"
fi

# Slots move: those of the server that has it.
for n in 1 2 3 4; do ((GOT[n - 1] == 0)) || victim=$n; done
attack more S
lb ipvsadm -e -t $SVC -r 10.0.0.1$victim:80 -g -w 0
ok "public key, moving: slots that nobody used settle" wait_for 20 settled $PUBLIC
attack picked S 0 "$FLOWS"
eq "public key, moving: all reach one server" "$MOST $SUM" "$SENT $SENT"
made picked
eq "public key, moving: a SYN makes an entry for its flow" "$MADE" "$FLOWS"
between "public key, moving: which lives for a minute" "$LIFE" 1 60
row "picked by the key: SYN" mhs moving
attack picked S 0 "$FLOWS"
made picked
eq "public key, moving: the same again, no more entries" "$MADE" "$FLOWS"
attack picked R "$FLOWS" "$FLOWS"
made picked
eq "public key, moving: a RST makes none" "$MADE" "$FLOWS"
attack picked A "$FLOWS" "$FLOWS"
eq "public key, moving: the others reach the old server" "${GOT[victim - 1]} $SUM" "$SENT $SENT"
made picked ESTABLISHED
eq "public key, moving: an ACK makes an entry for its flow" "$MADE" "$FLOWS"
between "public key, moving: which lives for the session timeout" "$LIFE" 601 900
row "picked by the key: ACK" mhs moving
others "public key, moving" 400

# The table of entries is full.
room=$(lb sysctl -n net.ipv4.vs.conn_max)
max=$(($(entries) + 100))
lb sysctl -qw net.ipv4.vs.conn_max=$max
attack more S
made more
# Those of SYNs before it may be over by now.
between "public key, full: there is room for some" "$MADE" 90 $max
between "public key, full: entries end at conn_max" "$(entries)" "$MADE" $max
eq "public key, full: every packet reaches a server all the same" $SUM "$SENT"
row "not picked, conn_max is reached after 100: SYN" mhs "some moving"
others "public key, full" 500
lb sysctl -qw net.ipv4.vs.conn_max="$room"

# Entries of SYNs can go before their minute is over.
attack picked S 0 "$FLOWS"
lb sysctl -qw net.ipv4.vs.drop_entry=3
fewer() {
	made picked SYN_RECV
	((MADE < FLOWS * 9 / 10))
}
ok "public key, drop_entry: entries go before their time" wait_for 40 fewer
others "public key, drop_entry" 600
lb sysctl -qw net.ipv4.vs.drop_entry=0

exec 8>&-
wait $neighbours
eq "in the same slot: all that time, no live connection breaks or moves" \
	"$(tail -n 1 "$WORK/stayed" | jq -c '[.broken, .asked == .servers.rs'$victim', .asked > 80]')" "[0,true,true]"
came=$(in_ns client python3 "$HERE/skew.py" live "$WORK/newcomers" </dev/null | tail -n 1)
eq "in the same slot: who comes is answered, by another server" \
	"$(jq -c '[.broken, .servers.rs'$victim', (.servers | add)]' <<<"$came")" "[0,null,8]"
stop_long
lb ipvsadm -C

# The schedulers of the kernel, which have one key for all.
for sched in mh sh; do
	PORT=$((PORT + 1))
	{
		echo "-A -t $VIP:$PORT -s $sched -b $sched-port"
		for n in 1 2 3 4; do echo "-a -t $VIP:$PORT -r 10.0.0.1$n:$PORT -g"; done
	} | lb ipvsadm -R
	attack sums S 0 "$FLOWS"
	eq "$sched: all with the same sum reach one server" "$MOST $SUM" "$SENT $SENT"
	made sums
	eq "$sched: an entry for each" "$MADE" "$FLOWS"
	row "same sum of address and port" $sched any
	attack any S
	made any
	eq "$sched: an entry for each of the others" "$MADE" "$SENT"
	row "not picked: SYN" $sched any
	attack picked A 0 "$FLOWS"
	made picked
	eq "$sched: an ACK makes none, and reaches no server" "$MADE $SUM" "0 0"
	row "not picked: ACK" $sched any
	# Less than there are, or those that expire would make room.
	lb sysctl -qw net.ipv4.vs.conn_max=100
	attack more S
	made more
	eq "$sched, full: no entry, and no packet reaches a server" "$MADE $SUM" "0 0"
	row "not picked, conn_max is reached: SYN" $sched any
	lb sysctl -qw net.ipv4.vs.conn_max="$room"
	lb ipvsadm -C
done
[[ ${COUNTED-} ]] || jq -cn --argjson picked "$picked" --argjson asked "$asked" --argjson slots "$SIZE" \
	--argjson ports "$one_address" '{$picked, $asked, $slots, $ports}' | sed 's/^/# /'
