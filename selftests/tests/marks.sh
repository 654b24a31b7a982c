#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Services by firewall mark and for any port, stateless, beside services of other
# schedulers that IPVS prefers. Fails when they make entries, or take packets of
# a service that comes first.

. "$(dirname "$0")/../lib.sh"
setup
modprobe -q nf_tables

lb nft -f - <<-NFT
	table inet m {
		chain pre {
			type filter hook prerouting priority mangle;
			ip daddr $VIP meta mark set 1
			ip6 daddr $VIP6 meta mark set 2
		}
	}
NFT
# While nothing is feared: a packet has no mark yet where express mode looks at it.
service $SVC
short 20 --first 1500 >/dev/null
lb ipvsadm -A -f 1 -s $SCHED
lb ipvsadm -a -f 1 -r 10.0.0.13:0 -g
settle
eq "a mark comes first where no flow has an entry" \
	"$(short 20 --first 1600 | jq .servers.rs3) $(entries)" "20 0"
lb ipvsadm -C

lb ipvsadm -A -f 1 -s $SCHED
lb ipvsadm -A -f 2 -6 -s $SCHED
for n in 1 2 3 4; do
	lb ipvsadm -a -f 1 -r 10.0.0.1$n:0 -g
	lb ipvsadm -a -f 2 -6 -r "[fd00::1$n]:0" -g
done
settle
result=$(short 60)
eq "mark, IPv4: answered by all servers, no entry" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[60,4] 0"
result=$(short 60 --vip $VIP6)
eq "mark, IPv6: answered by all servers, no entry" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[60,4] 0"
for n in 1 2 3 4; do serve $n udp $VIP 53; done
result=$(short 60 --proto udp --port 53)
eq "mark, UDP: answered by all servers, no entry" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[60,4] 0"

start_long 40 --first 1000
lb ipvsadm -e -f 1 -r 10.0.0.11:0 -g -w 0
eq "mark: drain: no connection breaks" "$(long_status .broken)" 0
between "mark: drain: flows of moving slots have entries" "$(entries)" 1 39
stop_long

# Such a service is for any protocol, and so the longest timeout of all is its own.
lb ipvsadm --set 4 4 300
start_long 40 --proto udp --port 53 --first 1200 --pause 6
home=$(long_status .servers)
lb ipvsadm -e -f 1 -r 10.0.0.13:0 -g -w 9
nap 6
eq "mark, UDP: a flow silent for longer than those of TCP may be stays where it is" \
	"$(long_status '"\(.rehomed) \(.broken)"') $(long_status .servers)" "0 0 $home"
stop_long
lb ipvsadm --set 900 120 300

# IPVS prefers a service by mark, whatever its scheduler.
lb ipvsadm -C
service $SVC
short 20 --first 2000 >/dev/null
eq "by address, marked packets: no entry" "$(entries_from 2000 20)" 0
lb ipvsadm -A -f 1 -s $SCHED
lb ipvsadm -a -f 1 -r 10.0.0.13:0 -g
settle
eq "a mark comes first, without entries" \
	"$(short 20 --first 2500 | jq .servers.rs3) $(entries_from 2500 20)" "20 0"
lb ipvsadm -D -f 1
lb ipvsadm -A -f 1 -s rr
lb ipvsadm -a -f 1 -r 10.0.0.11:0 -g
result=$(short 20 --first 3000)
eq "a mark of another scheduler comes first" "$(jq .servers.rs1 <<<"$result")" 20
eq "and makes its entries" "$(entries_from 3000 20)" 20
lb ipvsadm -D -f 1
result=$(short 20 --first 4000)
eq "without it: no entry again" "$(jq .answered <<<"$result") $(entries_from 4000 20)" "20 0"

# A service for all ports; ipvsadm makes such with persistence only.
lb nft delete table inet m
lb ipvsadm -C
ok "any port: the service is made" lb python3 "$HERE/any_port.py"
settle
result=$(short 60 --first 5000)
eq "any port: answered by all servers, no entry" \
	"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries_from 5000 60)" "[60,4] 0"
lb ipvsadm -A -t $SVC -s rr
lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -g
result=$(short 20 --first 6000)
eq "a service for the port comes first, with its entries" \
	"$(jq .servers.rs2 <<<"$result") $(entries_from 6000 20)" "20 20"
lb ipvsadm -D -t $SVC

# Several services on one address.
lb ipvsadm -C
for n in 1 2 3 4; do serve $n udp $VIP 80; done
service $SVC
lb ipvsadm -A -u $VIP:80 -s $SCHED
lb ipvsadm -a -u $VIP:80 -r 10.0.0.13:80 -g
lb ipvsadm -A -t $VIP:8080 -s $SCHED
lb ipvsadm -a -t $VIP:8080 -r 10.0.0.11:8080 -g
settle
eq "UDP beside TCP on one port" "$(short 20 --proto udp | jq .servers.rs3)" 20
eq "TCP beside UDP" "$(short 60 --first 7000 | jq '.servers | length')" 4
eq "a port where nobody listens: refused by the server" \
	"$(short 5 --port 8080 --timeout 10 | jq -c .errors)" '{"ConnectionRefusedError":5}'
