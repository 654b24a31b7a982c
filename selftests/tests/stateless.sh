#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Connections through a stable table make no entry and spread by weight, IPv4
# and IPv6. Fails when door one passes packets on to IPVS.

. "$(dirname "$0")/../lib.sh"
setup

service "$SVC"
result=$(short 300)
eq "IPv4: every connection is answered" "$(jq .answered <<<"$result")" 300
eq "IPv4: no entry" "$(entries)" 0
for n in $(seq "$SERVERS"); do
	between "IPv4: share of rs$n" "$(jq ".servers.rs$n" <<<"$result")" 45 105
done

service "$SVC6"
result=$(short 300 --vip $VIP6)
eq "IPv6: every connection is answered" "$(jq .answered <<<"$result")" 300
eq "IPv6: no entry" "$(entries)" 0
for n in $(seq "$SERVERS"); do
	between "IPv6: share of rs$n" "$(jq ".servers.rs$n" <<<"$result")" 45 105
done

lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 3
ok "weight 3" grep -q '10.0.0.11:80 *Route *3' <(lb ipvsadm -Ln)
result=$(short 300 --first 5000)
between "weight 3 of 6" "$(jq .servers.rs1 <<<"$result")" 120 180
