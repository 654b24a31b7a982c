#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that are wrong in any way, mutated from sound ones (fuzz_packets.py), into
# a balancer with services of every kind, while nothing moves and while slots move.
# Fails when one of them brings the kernel to complain, makes an entry where slots
# are stable or more than there may be, is counted in one place and not in another,
# or when a service does not work afterwards.
#
# PACKETS is how many, SEED which, FIRST the first of them. Packet N of a seed is
# always the same, so what the log complains about can be sent again.
#
# Needs: native speed

. "$(dirname "$0")/../lib.sh"
had=$(complaints)
PACKETS=${PACKETS:-20000}
SEED=${SEED:-1}
FIRST=${FIRST:-0}
# IPVS has no entry that lives for a shorter time than these.
T=900
# Express mode is off where a service is found by a mark.
MARKS=$([[ ${EXPRESS-} ]] && echo --no-marks)
setup
lb ipvsadm --set $T $T $T
modprobe -q nf_tables
for module in ipip ip_gre sit ip6_tunnel fou fou6; do modprobe -q $module; done
# What is complained about names the batch, however many there are.
sysctl -qw kernel.printk_devkmsg=on 2>/dev/null

for ip in 10.0.0.101 10.0.0.102 10.0.0.103; do ip -n lb addr add $ip/32 dev eth0; done
for ip in fd00::101 fd00::102; do ip -n lb addr add $ip/128 dev eth0 nodad preferred_lft 0; done
for dev in tunl0 gre0 sit0; do ip -n lb link set $dev up; done
lb ip fou add port 5555 gue 2>/dev/null
# What is in a tunnel to the balancer comes from nowhere near.
lb sysctl -qw net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.gre0.rp_filter=0
for n in 1 2 3 4; do
	in_ns rs$n ip link set tunl0 up
	# Answers would go nowhere: what is tested is before the servers.
	in_ns rs$n nft -f - 2>/dev/null <<-NFT || true
		table netdev fuzz {
			chain in {
				type filter hook ingress device eth0 priority 0;
				ip saddr != 10.0.0.0/8 drop
				ip6 saddr != { fd00::/64, fd01::/64, fe80::/64, :: } drop
			}
		}
	NFT
done
[[ $MARKS ]] || mark_101

fuzz() { in_ns client python3 "$HERE/fuzz_packets.py" "$@" $MARKS; }
fuzz services | lb ipvsadm -R
service_count=$(fuzz services | grep -c -- '^-A')
lb python3 "$HERE/any_port.py"
settle
eq "services" "$(lb ipvsadm -Ln | grep -cE '^(TCP|UDP|SCTP|FWM) ')" $((service_count + 1))

# Entries of services that have none while nothing moves: all but those of 10.0.0.103.
strangers() { lb awk 'NR > 1 && $4 != "0A000067"' /proc/net/ip_vs_conn; }
works() {
	local vip
	for vip in $VIP $VIP6; do
		[[ $(short 40 --vip $vip --first "$1" --timeout 10 | jq .answered) == 40 ]] || return 1
	done
}
# IPVS shows sums that it makes every two seconds.
counts() { lb python3 "$HERE/netlink.py" sums; }
add_up() { [[ $(counts | tee "$WORK/counts" | jq -c .amiss) == "[]" ]]; }

ok "before: services work" works 0
in_half=$((PACKETS / 2))
result=$(fuzz send $in_half --seed "$SEED" --first "$FIRST")
echo "# $result"
sent=$(jq .sent <<<"$result")
ok "stable: what is counted adds up" wait_for 20 add_up
counted=$(cat "$WORK/counts")
echo "# $counted"
packets=$(jq .packets <<<"$counted")
between "stable: that many were for a service and were forwarded" "$packets" $((sent / 8)) $((sent * 2))
eq "stable: no entry" "$(strangers | wc -l)" 0
strangers | head -n 3 | sed 's/^/# /'
ok "stable: services work" works 1000
if [[ ${EXPRESS-} ]]; then
	count_routed
	eq "express: services work" "$(short 100 --first 1500 | jq .answered)" 100
	# Of five for each connection.
	between "express: packets that were routed all the same" "$(routed)" 0 100
fi

# Every service has slots that move, and some move again and again meanwhile.
# The services that have entries have some already.
MAX=$(($(entries) + 2000))
lb sysctl -qw net.ipv4.vs.conn_max=$MAX
change() {
	fuzz services | grep -- '^-a' | grep -v -- '-f ' | awk -v to="$1" '
		{ sub(/^-a/, "-e"); sub(/-w [0-9]+$/, "") } NR % 4 == 1 { print $0 "-w " to }' | lb ipvsadm -R
}
change 9
flap() {
	local n=0
	while true; do
		n=$((n + 1))
		lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w $((n % 3 * 4))
		lb ipvsadm -e -u "[$VIP6]:53" -r "[fd00::12]:53" -g -w $((n % 2 * 5))
		lb ipvsadm -d -t 10.0.0.102:81 -r 10.0.0.13:81
		lb ipvsadm -a -t 10.0.0.102:81 -r 10.0.0.13:81 -i
		nap 0.5
	done
}
flap &
flapper=$!
most=0
fuzz send $((PACKETS - in_half)) --seed "$SEED" --first $((FIRST + in_half)) >"$WORK/moving" &
pid=$!
while kill -0 $pid 2>/dev/null; do
	n=$(entries)
	((n <= most)) || most=$n
	nap 0.5
done
ok "moving: all were sent" wait $pid
kill $flapper
wait $flapper 2>/dev/null
echo "# $(cat "$WORK/moving")"
# IPVS looks and then counts: each CPU may add one more.
between "moving: entries, at most conn_max" "$most" 100 $((MAX + $(nproc)))
wait_for 20 add_up
between "moving: packets that were for a service" $(($(jq .packets "$WORK/counts") - packets)) \
	$((sent / 8)) $((sent * 2))
ok "moving: services work" works 2000
# Room again: what is new gets its entry.
lb sysctl -qw net.ipv4.vs.conn_max=100000
ok "after: services work" works 3000
# But for the server that was deleted and added: what it had counted before may be forgotten.
add_up_but_one() { add_up || [[ $(jq -c '[.amiss[] | select(startswith("(2, 6, \u002710.0.0.102\u0027, 81)") | not)]' "$WORK/counts") == "[]" ]]; }
ok "after: what is counted adds up" wait_for 20 add_up_but_one
echo "# $(cat "$WORK/counts")"
eq "nothing new in the kernel's log" $(($(complaints) - had)) 0
