#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The oracle: connections of TCP, UDP and SCTP come and go all the time, each
# knows the server that answered it first, and whatever can happen to a service
# happens: first one event after the other, then a random schedule of them. No
# connection moves, is reset or hangs without one of the reasons that the manual
# gives. Fails when any event makes any connection lose its server.
#
#   SEED=N      another schedule; the same one has the same events in the same order
#   ROUNDS=N    events of the random schedule
#   DURATION=N  or as many as fit into so many seconds
#   FLOWS=N     connections at a time
#   SCHED=mh    another scheduler: its broken connections are counted, that is all
#
# Needs: hours

SERVERS=5
. "$(dirname "$0")/../lib.sh"
T=${T:-8}
SEED=${SEED:-1}
FLOWS=${FLOWS:-40}
ROUNDS=${ROUNDS:-12}
DURATION=${DURATION:-0}
for name in T SEED FLOWS ROUNDS DURATION; do
	[[ ${!name} =~ ^[0-9]+$ ]] || {
		echo "Bail out! $name=${!name} is not a number"
		exit 2
	}
done
setup
modprobe sctp
modprobe ipip
lb ipvsadm --set "$T" "$T" "$T"
VIPS=("-t $SVC" "-u $VIP:53" "--sctp-service $VIP:99")
PORTS=(80 53 99)

for n in $(seq $SERVERS); do
	serve "$n" udp $VIP 53
	serve "$n" sctp $VIP 99
	ip -n rs"$n" link set tunl0 up
	in_ns rs"$n" sysctl -qw net.ipv4.conf.tunl0.rp_filter=0
done

# Of each server: its weight, 0 if it is drained, none if it is not there; and its method.
declare -A weight=() method=()
for n in $(seq $SERVERS); do weight[$n]=1 method[$n]=-g; done

# each LINE...: ipvsadm's commands for all three services, in which V is the service and P its port.
each() {
	local i line
	for i in 0 1 2; do
		for line; do
			line=${line/V/${VIPS[i]}}
			echo "${line/P/${PORTS[i]}}"
		done
	done | lb ipvsadm -R
}
server() { each "$1 V -r 10.0.0.1$2:P ${*:3}"; }
edit() { server -e "$1" "${method[$1]}" -w "${weight[$1]}"; }
add() { server -a "$1" "${method[$1]}" -w "${weight[$1]}"; }
usable() {
	local n
	for n in "${!weight[@]}"; do ((weight[$n] == 0)) || echo "$n"; done
}

# The events. Before a connection may break for a reason, the clients are told.
join() {
	weight[$1]=1
	add "$1"
	long_ask "back rs$1" >/dev/null
}
drain() {
	long_ask "drain rs$1" >/dev/null
	weight[$1]=0
	edit "$1"
}
undrain() {
	weight[$1]=1
	edit "$1"
	long_ask "back rs$1" >/dev/null
}
# remove N REASON: with the reason of a drain, only UDP may move.
remove() {
	long_ask "$2 rs$1" >/dev/null
	server -d "$1"
	unset "weight[$1]"
}
reweigh() {
	weight[$1]=$2
	edit "$1"
}
remethod() {
	case ${method[$1]} in
	-g) method[$1]=-i ;;
	-i) method[$1]=-g ;;
	esac
	edit "$1"
}
flap() {
	local before=${weight[$1]} _
	long_ask "drain rs$1" >/dev/null
	for _ in 1 2 3; do
		reweigh "$1" 0
		reweigh "$1" "$before"
	done
	server -d "$1"
	add "$1"
	long_ask "back rs$1" >/dev/null
}
# All to weight 0, and back: who is new meanwhile is refused.
zero() {
	local n
	long_ask closed >/dev/null
	for n in "${!weight[@]}"; do
		long_ask "drain rs$n" >/dev/null
		server -e "$n" "${method[$n]}" -w 0
	done
	long_status .total >/dev/null
	for n in "${!weight[@]}"; do edit "$n"; done
	for n in "${!weight[@]}"; do
		((weight[$n] == 0)) || long_ask "back rs$n" >/dev/null
	done
	settle
	long_ask open >/dev/null
}
timeouts() { lb ipvsadm --set "$1" "$1" "$1"; }
# Another scheduler and back, after every connection got an entry. While a service has none it
# refuses who is new.
handover() {
	each "-E V -s $SCHED -b flag-3"
	settle
	# Each has spoken since, and those that were not open yet.
	long_status .total >/dev/null
	long_status .total >/dev/null
	long_ask closed >/dev/null
	each "-E V -s $1"
	long_status .total >/dev/null
	each "-E V -s $SCHED"
	settle
	long_ask open >/dev/null
}
# Slots are merged meanwhile, and entries are not needed any more.
merges() { sleep $((T * 5 / 4)); }

began=$(date +%s%N)
events=0
# event NAME COMMAND...: and what came of it.
event() {
	local what=$1 now broken
	shift
	now=$(($(date +%s%N) - began))
	printf '# %d.%03d s: %s\n' $((now / 1000000000)) $((now / 1000000 % 1000)) "$*"
	"$@"
	events=$((events + 1))
	check "$what"
}
check() {
	local now
	now=$(long_ask status)
	if [[ $SCHED == mhs ]]; then
		eq "$1: no connection moves, is reset or hangs" "$(jq .wrong <<<"$now")" 0
		jq -r '.first_wrong[]' <<<"$now" | while read -r line; do
			echo "# $line"
			[[ $line =~ from\ ([^ ]+) ]]
			lb ipvsadm -Lnc | grep -F " ${BASH_REMATCH[1]}:" | sed 's/^/#   /'
		done
	else
		echo "# $1: $(jq -c '[.broken, .wrong]' <<<"$now") connections broken, and without a reason of mhs"
	fi
}
# figures PART
figures() {
	local now
	now=$(long_ask status)
	if [[ $SCHED == mhs ]]; then
		# Or the machine was too slow to find anything out.
		between "$1: few connections break for having been silent" \
			"$(jq '.reasons.silent // 0' <<<"$now")" 0 $(($(jq .total <<<"$now") / 10))
	fi
	jq -c --arg part "$1" --arg sched "$SCHED" --argjson seed "$SEED" \
		--argjson events $events --argjson express "$([[ ${EXPRESS-} ]] && echo true || echo false)" \
		'{part: $part, sched: $sched, express: $express, seed: $seed, events: $events, total,
			moved: (.states.moved // 0), reset: (.states.reset // 0), hung: (.states.hung // 0),
			reasons, wrong, checks: .rounds, rehomed}' <<<"$now" | sed 's/^/# oracle /'
}
start() {
	events=0
	# Whoever is silent for T may lose its way, if the machine is that slow.
	start_long "$FLOWS" --proto tcp,udp,tcp,sctp --port 80,53,80,99 --life 12 --seed "$SEED" \
		--silence $((T * 4 / 5)) --first "$1"
}

each "-A V -s $SCHED"
for n in 1 2 3 4; do add "$n"; done
unset "weight[5]"
settle
start 0

# One after the other.
event "a server is added" join 5
event "a weight is changed" reweigh 1 3
event "to a tunnel" remethod 2
event "to direct routing" remethod 2
event "timeouts are changed" timeouts $((T * 2))
event "a server is drained" drain 3
event "a server is back" undrain 3
event "a server flaps" flap 4
timeouts "$T"
event "merged" merges
event "a server is deleted: grace" remove 2 drain
event "it is added within grace" join 2
event "all to weight 0 and back" zero
if [[ $SCHED == mhs ]]; then event "another scheduler and back, by handover" handover rr; fi
event "merged" merges
event "a server is deleted" remove 1 delete
event "its grace ends" merges
on1=$(long_status '.protocols | [.tcp, .udp | .rs1 // 0] | add')
event "it is added again" join 1
figures events
total=$(long_status .total)
between "connections in all" "$total" "$FLOWS" 65000
if [[ $SCHED == mhs ]]; then
	# SCTP has 15 minutes.
	eq "grace: its TCP connections have ended, and no UDP flow is on it" "$on1" 0
fi
stop_long

# A random schedule.
echo "# SEED=$SEED: the random schedule of this run"
start $((total + 1000))
RANDOM=$SEED
began=$(date +%s%N)
round=0
# some LIST...: one of them, by chance.
some() { echo "${*:1 + pick % $#:1}"; }
while ((DURATION ? $(date +%s%N) - began < DURATION * 1000000000 : round < ROUNDS)); do
	round=$((round + 1))
	what=$((RANDOM % 16)) pick=$RANDOM more=$RANDOM
	mapfile -t up < <(usable | sort)
	drained=() absent=()
	for n in $(seq $SERVERS); do
		[[ ${weight[$n]-} ]] || absent+=("$n")
		[[ ${weight[$n]-} != 0 ]] || drained+=("$n")
	done
	one=$(some "${up[@]}")
	# Two at least go on.
	((${#up[@]} > 2 || (what != 0 && what != 1))) || what=2
	case $what in
	0) event "round $round" drain "$one" ;;
	1) event "round $round" remove "$one" delete ;;
	2 | 3 | 4)
		# One that is out comes back.
		if ((${#absent[@]})); then
			event "round $round" join "$(some "${absent[@]}")"
		elif ((${#drained[@]})); then
			event "round $round" undrain "$(some "${drained[@]}")"
		fi
		;;
	5) if ((${#drained[@]})); then event "round $round" remove "$(some "${drained[@]}")" delete; fi ;;
	6 | 7) event "round $round" reweigh "$one" $((more % 4 + 1)) ;;
	8 | 9) event "round $round" remethod "$one" ;;
	10)
		# Slots move already, so a part of them may have no grace any more.
		long_ask "delete rs$one" >/dev/null
		event "round $round" flap "$one"
		;;
	11) event "round $round" zero ;;
	12) event "round $round" timeouts $((T * (more % 3 + 2) / 2)) ;;
	13) if [[ $SCHED == mhs ]]; then event "round $round" handover "$(some rr mh wrr sh)"; fi ;;
	14) event "round $round" merges ;;
	15) sleep $((more % 3)) ;;
	esac
	# Sometimes the next comes at once.
	((pick % 3)) || sleep $((more % 4))
done
merges
check "at the end"
figures random
between "answers checked" "$(long_status .rounds)" $((FLOWS * 2)) 1000000000
stop_long
