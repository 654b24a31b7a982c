#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many services, many servers: 1,000 services of 20 servers, one of 4,000. Fails
# when one of them does not work, or memory is not given back.

. "$(dirname "$0")/../lib.sh"
setup
SERVICES=${SERVICES:-1000}
MANY=${MANY:-4000}

{
	for s in $(seq "$SERVICES"); do
		svc=10.8.$((s / 250)).$((s % 250 + 1)):80
		echo "-A -t $svc -s $SCHED"
		for n in $(seq 20); do echo "-a -t $svc -r 10.0.0.$((10 + n)):80 -g"; done
	done
} >"$WORK/services"
ip -n lb route add local 10.8.0.0/16 dev lo
ip -n client route add 10.8.0.0/16 via 10.0.0.1
for n in 1 2 3 4; do ip -n rs$n route add local 10.8.0.0/16 dev lo; done

before=$(kernel_memory)
lb ipvsadm -R <"$WORK/services"
eq "$SERVICES services, 20 servers each" "$(lb ipvsadm -Ln | grep -c -e '->')" $((SERVICES * 20 + 1))
# Four of the twenty answer.
for n in $(seq 5 20); do
	for s in 1 $((SERVICES / 2)) "$SERVICES"; do
		echo "-d -t 10.8.$((s / 250)).$((s % 250 + 1)):80 -r 10.0.0.$((10 + n)):80"
	done
done | lb ipvsadm -R
settle
for s in 1 $((SERVICES / 2)) "$SERVICES"; do
	result=$(short 40 --vip 10.8.$((s / 250)).$((s % 250 + 1)))
	eq "service $s: answered by all servers" \
		"$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[40,4]"
done
eq "no entry" "$(entries)" 0
with=$(kernel_memory)
lb ipvsadm -C
# IPVS keeps deleted servers for up to four minutes.
given_back() { (($(kernel_memory) - before < (with - before) / 4 + 8192)); }
ok "cleared: memory is given back" wait_for 300 given_back

# A server for each address of 10.9.0.0/16; boxes 1 to 4 stand for a quarter of them each.
for n in 1 2 3 4; do ip -n lb route add 10.9.$(((n - 1) * 4)).0/22 via 10.0.0.1$n; done
{
	echo "-A -t $SVC -s $SCHED"
	for n in $(seq "$MANY"); do echo "-a -t $SVC -r 10.9.$((n / 256)).$((n % 256)):80 -g -w 1"; done
} | lb ipvsadm -R
eq "one service, $MANY servers" "$(lb ipvsadm -Ln | grep -c -e '-> 10.9')" "$MANY"
nap 3
result=$(short 60 --first 200)
eq "they answer" "$(jq -c '[.answered, (.servers | length)]' <<<"$result")" "[60,4]"
eq "no entry" "$(entries)" 0
{
	for n in $(seq 100); do echo "-d -t $SVC -r 10.9.$((n / 256)).$((n % 256)):80"; done
} | lb ipvsadm -R
eq "a hundred deleted" "$(lb ipvsadm -Ln | grep -c -e '-> 10.9')" $((MANY - 100))
lb ipvsadm -C
