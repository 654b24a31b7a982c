#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What needs entries has them, as under any scheduler: persistence, masquerading,
# the conntrack setting. Fails when the door takes packets that are not its own, or
# when what was set goes on for those that have none again.

. "$(dirname "$0")/../lib.sh"
setup

# Persistence: a client stays, and has an entry.
lb ipvsadm -A -t $SVC -s $SCHED -p 60
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g; done
eq "persistence: works" "$(short 10 | jq .answered)" 10
ok "persistence: has entries" test "$(entries)" -ge 10
lb ipvsadm -D -t $SVC

# Masquerading: the servers answer through the balancer.
lb sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
	net.ipv4.conf.eth0.send_redirects=0
for n in 1 2 3 4; do
	ip -n rs$n addr del $VIP/32 dev lo
	ip -n rs$n route replace 10.1.0.0/16 via 10.0.0.1
done
lb ipvsadm -A -t $SVC -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -m; done
eq "masquerading: works" "$(short 20 --first 100 | jq .answered)" 20
eq "masquerading: has entries" "$(entries_from 100 20)" 20
lb ipvsadm -D -t $SVC
for n in 1 2 3 4; do
	ip -n rs$n addr add $VIP/32 dev lo
	ip -n rs$n route replace 10.1.0.0/16 via 10.0.0.2
done

# The setting that asks for an entry of each connection.
service $SVC
if lb sysctl -qw net.ipv4.vs.conntrack=1 2>/dev/null; then
	eq "conntrack: works" "$(short 10 --first 300 | jq .answered)" 10
	eq "conntrack: has entries" "$(entries_from 300 10)" 10
	# A server that is reached in another way now; then nothing is tracked again. Something has to ask
	# for it here, or nothing ever would be.
	modprobe -q nft_ct
	lb nft add table ip watch
	lb nft add chain ip watch input '{ type filter hook input priority 0; }'
	lb nft add rule ip watch input ct state new counter
	lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -i
	lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g
	lb sysctl -qw net.ipv4.vs.conntrack=0
	settle
	tracked() { lb sysctl -n net.netfilter.nf_conntrack_count; }
	before=$(tracked)
	result=$(short 80 --first 500)
	eq "conntrack off: works" "$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[80,4]"
	between "conntrack off: nothing new is tracked" "$(tracked)" 0 "$before"
	lb nft delete table ip watch
fi

# No usable server: refused, not forwarded.
for n in 1 2 3 4; do lb ipvsadm -e -t $SVC -r 10.0.0.1$n:80 -g -w 0; done
eq "no usable server: refused" "$(short 5 --first 400 --timeout 10 | jq .failed)" 5
