#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The balancer itself as a server, as a client, and as a backup that is to keep
# its hands off (backup_only). Fails when packets for a local server make entries
# or go astray as servers come and go, when connections of the balancer's own
# processes are not balanced, or when packets are taken that IPVS leaves alone.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"

# It serves, too: who gets past the doors and IPVS is answered by "lb".
mkdir "$WORK/lb"
sed 's/rs1/lb/g' "$WORK/rs1/conf" >"$WORK/lb/conf"
lb nginx -c "$WORK/lb/conf" -e "$WORK/lb/log"

# server COMMAND SERVICE N [OPTIONS]: N is 0 for the balancer itself.
server() {
	local command=$1 svc=$2 n=$3 addr
	shift 3
	addr=10.0.0.$((10 + n)):80
	[[ $svc == \[* ]] && addr=[fd00::$((10 + n))]:80
	((n)) || addr=${addr/10:80/1:80}
	((n)) || addr=${addr/10]/1]}
	lb ipvsadm "$command" -t "$svc" -r "$addr" "$@"
}
for svc in $SVC "$SVC6"; do
	lb ipvsadm -A -t "$svc" -s $SCHED
	for n in 0 1 2 3; do server -a "$svc" $n -g; done
done
settle

# The flows that got an entry since the last look.
made() { new_flows "$WORK/before" | wc -l; }
# spread RESULT: how many were answered, by how many servers, the balancer among them.
spread() { jq -c '[.answered, (.servers | length), (.servers.lb > 0)]' <<<"$1"; }

for ip in $VIP $VIP6; do
	svc=$SVC text=IPv4
	[[ $ip == "$VIP6" ]] && svc=$SVC6 text=IPv6
	flows >"$WORK/before"
	eq "$text: local server beside others" "$(spread "$(short 80 --vip $ip)")" "[80,4,true]"
	eq "$text: no entry" "$(made)" 0

	start_long 40 --first 1000 --vip $ip
	home=$(long_status .servers)
	between "$text: live connections of the local server" "$(long_status .servers.lb)" 1 39
	server -e "$svc" 0 -g -w 0
	eq "$text: local server drained: no connection breaks" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	between "$text: local server drained: some have entries" "$(made)" 1 39
	result=$(short 60 --first 2000 --vip $ip)
	eq "$text: local server drained: new connections go elsewhere" \
		"$(jq '.answered - (.servers.lb // 0)' <<<"$result")" 60
	server -d "$svc" 0
	eq "$text: local server deleted: no connection breaks" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	server -a "$svc" 0 -g
	server -e "$svc" 1 -g -w 0
	eq "$text: another drained: no connection breaks" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	server -e "$svc" 1 -g -w 1
	server -e "$svc" 0 -i
	eq "$text: as if by a tunnel: no connection breaks" \
		"$(long_status .broken) $(long_status .servers)" "0 $home"
	stop_long
done

# Its own processes as clients, from addresses of its own. Answers come from outside and have the
# virtual address, which is one of this host too.
lb sysctl -qw net.ipv4.conf.all.accept_local=1
ip -n lb route add local 10.1.200.0/24 dev lo
ip -n lb -6 route add local fd01::c800/120 dev lo
for n in 1 2 3 4; do
	ip -n rs$n route add 10.1.200.0/24 via 10.0.0.1
	ip -n rs$n -6 route add fd01::c800/120 via fd00::1
done
own() { lb python3 "$HERE/load.py" short "$@" --first 51200; }
flows >"$WORK/before"
eq "own clients, IPv4: answered by all servers" "$(spread "$(own 60)")" "[60,4,true]"
eq "own clients, IPv4: each has an entry" "$(made)" 60
flows >"$WORK/before"
eq "own clients, IPv6: answered by all servers" "$(spread "$(own 60 --vip $VIP6)")" "[60,4,true]"
eq "own clients, IPv6: each has an entry" "$(made)" 60
server -e $SVC 2 -g -w 0
result=$(own 60)
eq "own clients, a server drained: answered by the others" \
	"$(jq -c '[.answered, .servers.rs2]' <<<"$result")" "[60,null]"
server -e $SVC 2 -g -w 1

# The same by marks, which are given to answers of its own server, too: those stay here.
modprobe -q nf_tables
lb nft -f - <<-NFT
	table inet m {
		chain pre {
			type filter hook prerouting priority mangle;
			iif lo ip daddr { $VIP, 10.1.200.0/24 } meta mark set 1
			iif lo ip6 daddr { $VIP6, fd01::c800/120 } meta mark set 2
		}
	}
NFT
lb ipvsadm -S -n >"$WORK/services"
lb ipvsadm -C
lb ipvsadm -A -f 1 -s $SCHED
lb ipvsadm -A -f 2 -6 -s $SCHED
for n in 0 1 2; do
	lb ipvsadm -a -f 1 -r 10.0.0.$((n ? 10 + n : 1)):0 -g
	lb ipvsadm -a -f 2 -6 -r "[fd00::$((n ? 10 + n : 1))]:0" -g
done
settle
eq "own clients, by a mark, IPv4: answered by all servers" "$(spread "$(own 60)")" "[60,3,true]"
eq "own clients, by a mark, IPv6: answered by all servers" \
	"$(spread "$(own 60 --vip $VIP6)")" "[60,3,true]"
lb nft delete table inet m
lb ipvsadm -C
lb ipvsadm -R <"$WORK/services"
settle

# A backup that is not to balance.
lb sysctl -qw net.ipv4.vs.backup_only=1
eq "backup_only, no daemon: balanced" "$(spread "$(short 80)")" "[80,4,true]"
ip -n lb route add 224.0.0.0/4 dev eth0
lb ipvsadm --start-daemon backup --mcast-interface eth0 --syncid 7
flows >"$WORK/before"
eq "backup_only: left to the host" "$(short 40 | jq -c .servers)" '{"lb":40}'
eq "backup_only: IPv6 too" "$(short 40 --vip $VIP6 | jq -c .servers)" '{"lb":40}'
server -e $SVC 3 -g -w 0
eq "backup_only: in moving slots too" "$(short 40 | jq -c .servers)" '{"lb":40}'
server -e $SVC 3 -g -w 1
eq "backup_only: no entry" "$(made)" 0
lb sysctl -qw net.ipv4.vs.backup_only=0
eq "a backup that balances, too" "$(spread "$(short 80)")" "[80,4,true]"
lb sysctl -qw net.ipv4.vs.backup_only=1
lb ipvsadm --stop-daemon backup
eq "the daemon stopped: balanced again" "$(spread "$(short 80)")" "[80,4,true]"
