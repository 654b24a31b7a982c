#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# FTP through masquerading, active and passive: real transfers, which belong to
# entries of the control connection. Fails when data connections are taken for
# flows of their own.

. "$(dirname "$0")/../lib.sh"
setup
lb sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
	net.ipv4.conf.eth0.send_redirects=0
modprobe ip_vs_ftp
mkdir -p "$WORK/ftp/empty" && chmod 755 "$WORK" "$WORK/ftp"
head -c 300000 /dev/urandom >"$WORK/ftp/file"
for n in 1 2 3 4; do
	ip -n rs$n addr del $VIP/32 dev lo
	ip -n rs$n route replace 10.1.0.0/16 via 10.0.0.1
	ip -n rs$n route del 10.0.0.0/24
	ip -n rs$n route add 10.0.0.1/32 dev eth0
	ip -n rs$n route add default via 10.0.0.1
	cat >"$WORK/vsftpd$n" <<-CONF
		listen=YES
		background=NO
		anonymous_enable=YES
		anon_root=$WORK/ftp
		secure_chroot_dir=$WORK/ftp/empty
		no_anon_password=YES
		seccomp_sandbox=NO
		ftp_username=root
		isolate=NO
		isolate_network=NO
	CONF
	sed -i 's/^ftp_username=root/ftp_username=daemon/' "$WORK/vsftpd$n"
	ip netns exec rs$n vsftpd "$WORK/vsftpd$n" &
done
listening() { in_ns rs4 ss -Hltn 'sport = :21' | grep -q .; }
wait_for 20 listening
lb ipvsadm -A -t $VIP:21 -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -t $VIP:21 -r 10.0.0.1$n:21 -m; done
settle
get() {
	in_ns client curl -s -m 30 --interface "$1" "${@:2}" "ftp://$VIP/file" | cmp - "$WORK/ftp/file"
}
ok "passive" get 10.1.0.5 --disable-epsv
ok "active" get 10.1.0.6 --disable-eprt -P 10.1.0.6
ok "with entries" test "$(entries)" -ge 2

# However its servers are reached: who asked for FTP must be known to what looks for data connections.
lb ipvsadm -C
for n in 1 2 3 4; do
	ip -n rs$n addr add $VIP/32 dev lo
	ip -n rs$n route add 10.0.0.0/24 dev eth0
	ip -n rs$n route replace 10.1.0.0/16 via 10.0.0.2
done
lb ipvsadm -A -t $VIP:21 -s $SCHED
for n in 1 2 3 4; do lb ipvsadm -a -t $VIP:21 -r 10.0.0.1$n:21 -g; done
settle
before=$(entries)
banner() { in_ns client timeout 10 bash -c "exec 3<>/dev/tcp/$VIP/21; head -c 3 <&3"; }
eq "direct routing: a server greets" "$(banner)" 220
eq "direct routing: an entry too" "$(($(entries) - before))" 1
