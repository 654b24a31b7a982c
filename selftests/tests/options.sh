#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Load options: what they do, and what is refused with which words. Fails when a
# bad value is taken, or an option is without effect.

. "$(dirname "$0")/../lib.sh"
setup

# refused TEXT OPTION: the module does not load and says why.
refused() {
	dmesg -C
	ok "$2 is refused" bash -c '! modprobe ip_vs_mhs "$1" 2>/dev/null' - "$2"
	ok "$2: it says '$1'" grep -q -e "$1" <(dmesg)
	[[ ! -d /sys/module/ip_vs_mhs ]] || rmmod ip_vs_mhs
}
mkdir -p /etc/modprobe.d
refused "must be one of .251, 509" table_size=100
refused "must be one of" table_size=0
refused "must be 0 to 100" balance=101
refused "must be 32 hex digits" hash_key=0123
refused "must be 32 hex digits" hash_key=g308a385886a3f24447370032e8a1913
refused "must be 1 to 15 letters" sched_name=
refused "must be 1 to 15 letters" sched_name=a.b
refused "must be 1 to 15 letters" sched_name=a123456789012345

for option in table_size hash_key balance sched_name; do
	ok "modinfo knows $option" grep -q "$option:" <(modinfo -F parm ip_vs_mhs)
done

# Everybody's table is the same, but for another key or size.
clients() { short 40 --clients | jq -cS .clients; }
modprobe ip_vs_mhs
eq "the key is shown" "$(cat /sys/module/ip_vs_mhs/parameters/hash_key)" \
	d308a385886a3f24447370032e8a1913
service $SVC
default=$(clients)
eq "the defaults: all are answered" "$(jq length <<<"$default")" 40
# others CLIENTS: all of them were answered, and not by the same.
others() { [[ $(jq length <<<"$1") == 40 && $1 != "$default" ]]; }
reload() {
	lb ipvsadm -C
	wait_for 20 rmmod ip_vs_mhs
	modprobe ip_vs_mhs "$@"
	service $SVC
}
reload hash_key=D308A385886A3F24447370032E8A1913 table_size=16381 balance=5
eq "the defaults, said: the same table" "$(clients)" "$default"
# Another one, and such as differ in one half only.
for key in 000102030405060708090a0b0c0d0e0f 0308a385886a3f24447370032e8a1913 d308a385886a3f24447370032e8a1914; do
	reload hash_key=$key
	ok "another key, $key: another table" others "$(clients)"
done
for size in 251 131071; do
	reload table_size=$size balance=0
	eq "$size slots: shown" "$(cat /sys/module/ip_vs_mhs/parameters/table_size)" $size
	result=$(short 100)
	eq "$size slots: answered by all servers, no entry" \
		"$(jq -c '[.answered, (.servers | length)]' <<<"$result") $(entries)" "[100,4] 0"
done

# In the place of mh, for those who cannot name another scheduler.
lb ipvsadm -C
wait_for 20 rmmod ip_vs_mhs
cat >/etc/modprobe.d/ip_vs_mhs.conf <<-CONF
	install ip_vs_mh /sbin/modprobe ip_vs_mhs
	options ip_vs_mhs sched_name=mh
CONF
SCHED=mh service $SVC
ok "mh: the module is loaded by itself" test -d /sys/module/ip_vs_mhs
eq "mh: the name" "$(lb ipvsadm -Ln | awk '/^TCP/ { print $3 }')" mh
result=$(short 40)
eq "mh: answered, no entry" "$(jq .answered <<<"$result") $(entries)" "40 0"
lb ipvsadm -C
wait_for 20 rmmod ip_vs_mhs
rm /etc/modprobe.d/ip_vs_mhs.conf
modprobe ip_vs_mh
dmesg -C
ok "a name that is taken is refused" bash -c '! modprobe ip_vs_mhs sched_name=mh 2>/dev/null'
rmmod ip_vs_mh
