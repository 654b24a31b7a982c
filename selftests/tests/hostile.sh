#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The netlink family and those who do not behave: malformed messages by hand and
# by the thousand, no privilege, dumps that are left open while tables, services,
# namespaces and the module change or go. Fails when a message that is wrong is
# answered, or refused without a word; when a dump hides that it is torn.
#
# Needs: two CPUs

. "$(dirname "$0")/../lib.sh"
had=$(complaints)
setup
T=${T:-20}
lb ipvsadm --set "$T" "$T" "$T"
MESSAGES=${MESSAGES:-5000}
raw() { lb python3 "$HERE/netlink.py" "$@"; }

service $SVC
before=$(lb ipvsadm -Sn)
result=$(raw malformed)
eq "malformed messages: none is answered, each is explained" "$(jq -c .amiss <<<"$result")" "[]"
eq "malformed messages: $(jq .cases <<<"$result") are refused" \
	"$(jq .refused <<<"$result")" "$(jq .cases <<<"$result")"
for seed in 1 2 3; do
	result=$(raw fuzz $((MESSAGES / 3)) $seed)
	echo "# $result"
	eq "$((MESSAGES / 3)) random messages, seed $seed: the family answers as before" \
		"$(jq .answers <<<"$result")" true
	between "and some of them" "$(jq '.ends.ok' <<<"$result")" 1 "$MESSAGES"
done
eq "IPVS is as it was" "$(lb ipvsadm -Sn)" "$before"

# Messages to IPVS about services that have the scheduler, sound and broken, and dumps meanwhile.
CHANGES=${CHANGES:-1500}
keep_sending
traffic=$!
result=$(lb python3 "$HERE/fuzz_ipvs.py" "$CHANGES" "${SEED:-1}")
kill $traffic
echo "# $result"
between "$CHANGES changes, seed ${SEED:-1}: some are made" "$(jq '.ends.ok // 0' <<<"$result")" \
	$((CHANGES / 8)) "$CHANGES"
eq "both families have the same services, all the time" "$(jq -c .amiss <<<"$result")" "[]"
ok "dumps came to an end meanwhile" test "$(jq '.dumps.ok // 0' <<<"$result")" -gt 0
eq "all services are gone" "$(lb ipvsadm -Sn)" ""
# IPVS takes any number for a protocol, but balances packets of three.
odd() { lb python3 "$HERE/any_port.py" --empty --proto 50 "$@" 2>&1 | tail -n 1; }
eq "a service of another protocol: refused" "$(odd)" "OSError: command 1: EPROTONOSUPPORT"
eq "another scheduler may have it" "$(odd --scheduler rr)" ""
eq "and keeps it" "$(odd --edit)" "OSError: command 2: EPROTONOSUPPORT"
eq "so there is none for the family" "$(raw torn services | jq -c '[.end, .messages]')" '["ok",0]'
lb ipvsadm -C
service $SVC
eq "a new service works" "$(short 40 --first 300 | jq .answered)" 40

# Privileges: those of the namespace.
unprivileged() { lb setpriv --bounding-set -net_admin --inh-caps -net_admin "$@"; }
eq "each kind of request, with CAP_NET_ADMIN: answered" \
	"$(raw each | jq -c '[.[]] | [length, unique]')" '[8,["ok"]]'
eq "without it: refused" \
	"$(unprivileged python3 "$HERE/netlink.py" each | jq -c '[.[]] | [length, unique]')" '[8,["EPERM"]]'
eq "without CAP_NET_ADMIN: no events" \
	"$(unprivileged python3 "$HERE/netlink.py" join | jq -r .end)" EPERM
eq "with it: events" "$(raw join | jq -r .end)" ok
# Who is in a chroot, as everything here is, may not make a user namespace: leave it.
out() {
	unshare -m nsenter --mount=/proc/self/ns/mnt /bin/busybox sh -c \
		'cd /overlay/root && mount --move . / && exec chroot . /usr/bin/env "$@"' - "$@"
}
own() { out unshare -Urn python3 "$HERE/netlink.py" "$@"; }
eq "in a namespace of one's own: its services, none" \
	"$(own torn services | jq -c '[.end, .messages]')" '["ok",0]'
told=$(own container)
eq "in a namespace of one's own: all that a service tells of itself but the machine's hash key" \
	"$(jq -c '.[0] == .[1], (.[0] | contains([7]), contains([6, 8]))' <<<"$told" | paste -sd' ')" "true false true"
eq "in a namespace of one's own: its events" "$(own join | jq -r .end)" ok
# ipvsadm-mhs where there is such a service.
own_tool() {
	out unshare -Urn sh -c 'python3 "$0" container >/dev/null && exec ipvsadm-mhs "$@"' "$HERE/netlink.py" "$@"
}
eq "in a namespace of one's own: ipvsadm-mhs list has no hash key" \
	"$(own_tool list --json | jq -c '.services[0] | [.slots, has("hash_key"), .hash_key]')" '[16381,true,null]'
rc=0
said=$(own_tool plan add -t $SVC -r 10.0.0.11 2>&1) || rc=$?
eq "in a namespace of one's own: ipvsadm-mhs plan, which needs it: refused" $rc 4
ok "and why" grep -q 'not permitted.*CAP_NET_ADMIN' <<<"$said"
# A stranger has all capabilities in a user namespace of his own, but it is not that of lb.
eq "with the capability in another user namespace: nothing" \
	"$(out ip netns exec lb unshare -Ur python3 "$HERE/netlink.py" torn services | jq -r .end)" EPERM

# Dumps of many parts, and what happens in between.
result=$(raw torn slots)
eq "slots: all of them in many messages, not interrupted" \
	"$(jq -c '[.slots, .interrupted, .end, (.messages > 60)]' <<<"$result")" '[16381,0,"ok",true]'
start_long 60
result=$(raw torn slots ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0)
eq "slots: the table changes meanwhile: told" \
	"$(jq -c '[.status, .end, (.interrupted > 0)]' <<<"$result")" '[0,"ok",true]'
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 1
result=$(raw torn slots ipvsadm -D -t $SVC)
eq "slots: the service goes meanwhile: told, and why" \
	"$(jq -c '[.status, .end, .explained]' <<<"$result")" '[0,"ENOENT",true]'
stop_long
service $SVC
remake() { raw torn slots bash -c "ipvsadm -D -t $SVC; ipvsadm -A -t $SVC -s $SCHED"; }
eq "slots: the service is made anew meanwhile: not taken for the old one" \
	"$(remake | jq -r .end)" ENOENT
for n in 1 2 3 4; do lb ipvsadm -a -t $SVC -r 10.0.0.1$n:80 -g; done

{
	for n in $(seq 300); do
		echo "-A -t 10.0.8.1:$n -s $SCHED"
		echo "-a -t 10.0.8.1:$n -r 10.0.0.11:$n -g"
		echo "-a -t $SVC -r 10.0.$((6 + n / 200)).$((n % 200 + 1)):80 -g"
	done
} | lb ipvsadm -R
settle
result=$(raw torn services)
eq "services: 301, in one piece" "$(jq -c '[.messages, .interrupted]' <<<"$result")" "[301,0]"
result=$(raw torn services ipvsadm -A -t 10.0.8.1:301 -s $SCHED)
ok "services: one comes meanwhile: told" test "$(jq .interrupted <<<"$result")" -gt 0
result=$(raw torn services ipvsadm -D -t 10.0.8.1:7)
ok "services: one goes meanwhile: told" test "$(jq .interrupted <<<"$result")" -gt 0
result=$(raw torn services ip netns exec client ipvsadm -A -t 10.0.8.1:1 -s $SCHED)
eq "services: one comes in another namespace: nobody's business" \
	"$(jq -c '[.messages, .interrupted]' <<<"$result")" "[301,0]"
in_ns client ipvsadm -C
result=$(raw torn dests)
eq "servers: 304, in one piece" "$(jq -c '[.messages, .interrupted]' <<<"$result")" "[304,0]"
result=$(raw torn dests ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w 0)
ok "servers: one changes meanwhile: told" test "$(jq .interrupted <<<"$result")" -gt 0
result=$(raw torn counters ipvsadm -C)
eq "counters: all services go meanwhile: told" \
	"$(jq -c '[.status, .end, (.interrupted > 0)]' <<<"$result")" '[0,"ok",true]'

# Somebody asks for everything all the time, while servers come and go under live connections.
service $SVC
start_long 60 --first 500
mkfifo "$WORK/watch"
lb python3 "$HERE/netlink.py" watch <"$WORK/watch" >"$WORK/watched" &
watcher=$!
exec 8>"$WORK/watch"
wait_for 20 grep -q open "$WORK/watched"
for n in $(seq 30); do
	lb ipvsadm -e -t $SVC -r 10.0.0.1$((n % 4 + 1)):80 -g -w $((n % 3))
	if ((n % 10 == 0)); then
		lb ipvsadm -d -t $SVC -r 10.0.0.12:80
		lb ipvsadm -a -t $SVC -r 10.0.0.12:80 -g
	fi
done
eq "watched all the time: no connection breaks" "$(long_status .broken)" 0
exec 8>&-
wait $watcher
stop_long
echo "# $(tail -n 1 "$WORK/watched")"
eq "no answer failed, or was of two states without saying so" \
	"$(tail -n 1 "$WORK/watched" | jq -c '[.failed, .amiss]')" "[0,0]"
ok "some said that they are" test "$(tail -n 1 "$WORK/watched" | jq .torn)" -gt 0
lb ipvsadm -C

# Events that nobody reads are lost for who does not read them, and for nobody else.
service $SVC
mkfifo "$WORK/deaf" "$WORK/listen"
lb python3 "$HERE/netlink.py" deaf <"$WORK/deaf" >"$WORK/deaf.said" &
deaf=$!
exec 7>"$WORK/deaf"
wait_for 20 grep -q open "$WORK/deaf.said"
lb python3 "$HERE/netlink.py" listen <"$WORK/listen" >"$WORK/heard" 7>&- &
listener=$!
exec 8>"$WORK/listen"
wait_for 20 grep -q open "$WORK/heard"
for n in $(seq 40); do
	lb ipvsadm -e -t $SVC -r 10.0.0.11:80 -g -w $((n % 2 + 2))
done
exec 7>&- 8>&-
wait $listener
wait $deaf
eq "a deaf listener: told that it lost events" "$(tail -n 1 "$WORK/deaf.said" | jq -r .end)" ENOBUFS
eq "and others heard all 40 changes" \
	"$(tail -n 1 "$WORK/heard" | jq '.["7"]')" 40

# The module and an open dump.
mkfifo "$WORK/hold"
lb python3 "$HERE/netlink.py" hold <"$WORK/hold" >"$WORK/held" &
holder=$!
exec 8>"$WORK/hold"
wait_for 20 grep -q open "$WORK/held"
lb ipvsadm -C
ok "the module is not unloaded while a dump is open" bash -c '! rmmod ip_vs_mhs 2>/dev/null'
exec 8>&-
wait $holder
eq "the dump ends" "$(tail -n 1 "$WORK/held" | jq -r .end)" ENOENT
ok "the module is unloaded then" wait_for 20 rmmod ip_vs_mhs

# The namespace and an open dump: the socket keeps it.
service $SVC
rm "$WORK/hold"
mkfifo "$WORK/hold"
lb python3 "$HERE/netlink.py" hold <"$WORK/hold" >"$WORK/held" &
holder=$!
exec 8>"$WORK/hold"
wait_for 20 grep -q open "$WORK/held"
ip netns del lb
exec 8>&-
wait $holder
eq "a namespace without a name: the dump goes on to its end" \
	"$(tail -n 1 "$WORK/held" | jq -r .end)" ok
eq "nothing new in the kernel's log" $(($(complaints) - had)) 0
