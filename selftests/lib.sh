# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# A small network for the selftests, and words to test with. To be sourced.
#
#    client (10.0.0.2, fd00::2; and all of 10.1.0.0/16 and fd01::/64)
#       |
#     [ sw: a bridge ]----+---------+---------+--- ...
#       |                 |         |         |
#      lb                rs1       rs2       rs3   (10.0.0.11, .12, .13 ...)
#   10.0.0.1           VIP on lo, answers go straight to the client
#   VIP 10.0.0.100, fd00::100
#
# Every box is a network namespace. On lb runs IPVS, on each rs an nginx that
# answers with its own name.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SCHED=${SCHED:-mhs}
VIP=10.0.0.100
VIP6=fd00::100
SVC=$VIP:80
SVC6=[$VIP6]:80
SERVERS=${SERVERS:-4}
WORK=$(mktemp -d)
FAILED=0
COUNT=0

# What no one ever writes to: to wait for it makes no process, and processes are what guests take long for.
exec {NEVER}<> <(:)
nap() { read -rt "$1" -u "$NEVER" || true; }

# in_ns NS COMMAND...: without the pipe to the live connections: daemons would keep it open, and it ends them.
in_ns() { nsenter --net="/run/netns/$1" -- "${@:2}" 9>&-; }
lb() { in_ns lb "$@"; }

# ok TEXT COMMAND...: one result, by the status of the command.
ok() {
	local text=$1
	shift
	COUNT=$((COUNT + 1))
	if "$@"; then
		echo "ok $COUNT $text"
	else
		echo "not ok $COUNT $text"
		FAILED=$((FAILED + 1))
	fi
}

# eq TEXT GOT WANTED
eq() {
	ok "$1" test "$2" = "$3"
	[[ $2 == "$3" ]] || echo "# got '$2', wanted '$3'"
}

# between TEXT GOT LOW HIGH
between() {
	ok "$1" test "$2" -ge "$3" -a "$2" -le "$4"
	(($2 >= $3 && $2 <= $4)) || echo "# got $2, wanted $3 to $4"
}

# complaints: how many are in the kernel's log. One that checks itself may have some since it booted.
complaints() { dmesg | grep -cE 'WARNING:|BUG:|Oops|RIP:|circular locking|suspicious RCU'; }

# wait_for SECONDS COMMAND...: polls until the command succeeds, more often in the beginning.
wait_for() {
	local begin=$SECONDS end=$((SECONDS + $1)) last='' pause
	shift
	until "$@"; do
		[[ ! $last ]] || return 1
		# One that takes long may have seen how it was when it began: once more.
		((SECONDS < end)) || last=1
		pause=0.2
		((SECONDS - begin < 5)) || pause=1
		nap $pause
	done
}

# The number of connection entries.
entries() {
	local lines
	lines=$(nsenter --net=/run/netns/lb wc -l /proc/net/ip_vs_conn)
	echo $((${lines% *} - 1))
}

# entries_from FIRST N: those of N clients of load.py from number FIRST on, IPv4. Others may fade
# meanwhile.
entries_from() {
	local low=$((16#0A010001 + $1)) ip n=0
	while read -r _ ip _; do
		((${#ip} == 8 && 16#$ip >= low && 16#$ip < low + $2)) && n=$((n + 1))
	done < <(lb tail -n +2 /proc/net/ip_vs_conn)
	echo $n
}
no_entries() { [[ $(entries) == 0 ]]; }

# The flows that have an entry, one a line: client and virtual address, with ports.
flows() { lb ipvsadm -Lnc | awk '/^(TCP|UDP|SCTP) / { print $4, $5 }' | sort -u; }

# new_flows FILE: those that FILE, made by flows, does not list.
new_flows() { comm -13 "$1" <(flows); }

setup() {
	local n servers=() lines
	trap teardown EXIT
	modprobe ip_vs
	# Options for when the module comes, which IPVS loads by itself.
	if [[ ${EXPRESS-} ]]; then
		mkdir -p /etc/modprobe.d
		echo "options ip_vs_mhs express=1" >/etc/modprobe.d/mhs-selftest.conf
	fi
	# An earlier test may have had the other one, and its name is in the way of sched_name=mh.
	[[ ! -d /sys/module/ip_vs_mh ]] || wait_for 20 rmmod ip_vs_mh
	for ((n = 1; n <= SERVERS; n++)); do servers+=("rs$n"); done
	lines=$(printf 'netns add %s\n' sw client lb "${servers[@]}")
	ip -batch - <<<"$lines"
	in_ns sw sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; exec ip -batch -' <<-IP
		link add br0 type bridge
		link set br0 up
	IP
	cables client lb "${servers[@]}"
	configure client 10.0.0.2 fd00::2 "
		route add local 10.1.0.0/16 dev lo
		route add local fd01::/64 dev lo"
	# The address of IPv6 is deprecated: not the source of what the balancer itself sends, tunnels too.
	configure lb 10.0.0.1 fd00::1 "
		route add 10.1.0.0/16 via 10.0.0.2
		route add fd01::/64 via fd00::2
		addr add $VIP/32 dev eth0
		addr add $VIP6/128 dev eth0 nodad preferred_lft 0"
	start_loader
	mkdir "${servers[@]/#/$WORK/}"
	for ((n = 1; n <= SERVERS; n++)); do start_server "$n"; done
	wait_for 30 servers_answer
	lb ipvsadm --set 900 120 300
}

# cables NS...: connects namespaces to the bridge.
cables() {
	local lines
	lines=$(for ns; do echo "link add p-$ns up master br0 type veth peer name eth0 netns $ns"; done)
	ip -n sw -batch - <<<"$lines"
}

# configure NS ADDR ADDR6 LINES [COMMAND...]: addresses, what ip is to do there besides, and a command that
# goes on there. As few processes as can be: they are what user-mode Linux takes long for.
configure() {
	local ns=$1 addr=$2 addr6=$3 lines=$4
	shift 4
	in_ns "$ns" sh -c '
		cd /proc/sys/net
		for dev in all default eth0; do
			echo 0 >ipv4/conf/$dev/rp_filter
			echo 0 >ipv6/conf/$dev/accept_dad
		done
		echo 1 >ipv4/conf/all/arp_ignore
		echo 2 >ipv4/conf/all/arp_announce
		echo 1 >ipv6/ip_nonlocal_bind
		[ $# != 0 ] || exec ip -batch -
		ip -batch - && exec "$@"' - "$@" <<-IP
		link set lo up
		link set eth0 up
		addr add $addr/24 dev eth0
		addr add $addr6/64 dev eth0 nodad
		$lines
	IP
}

# plug NS ADDR ADDR6: another box.
plug() {
	[[ -e /run/netns/$1 ]] || ip netns add "$1"
	cables "$1"
	configure "$1" "$2" "$3" ""
}

# start_server N: it has the VIP where nobody can ask for it: neighbours ask on eth0, and an address of lo
# is not answered for there. It answers with its name, but where a test makes $WORK/rsN/big with that.
start_server() {
	local ns=rs$1
	echo "
		user root;
		pid $WORK/$ns/pid;
		error_log $WORK/$ns/log crit;
		master_process off;
		events { worker_connections 4096; }
		http {
			access_log off;
			keepalive_requests 1000000;
			keepalive_timeout ${KEEPALIVE:-3600};
			client_max_body_size 0;
			server {
				listen 80 backlog=1024;
				listen [::]:80 ipv6only=on backlog=1024;
				location / { return 200 $ns; }
				location /big { root $WORK/$ns; }
			}
		}" >"$WORK/$ns/conf"
	configure "$ns" 10.0.0.$((10 + $1)) fd00::$((10 + $1)) "
		addr add $VIP/32 dev lo
		addr add $VIP6/128 dev lo nodad
		route add 10.1.0.0/16 via 10.0.0.2
		route add fd01::/64 via fd00::2" nginx -c "$WORK/$ns/conf" -e "$WORK/$ns/log"
}

servers_answer() {
	local n all=''
	for ((n = 1; n <= SERVERS; n++)); do all+=rs$n; done
	[[ $(in_ns client curl -s -m 2 "http://10.0.0.[11-$((10 + SERVERS))]/") == "$all" ]]
}

# service [SERVICE [FLAGS...]]: the service with all servers, direct routing.
service() {
	local svc=${1:-$SVC} n net=10.0.0.
	shift || true
	[[ $svc == \[* ]] && net=fd00::
	{
		echo "-A -t $svc -s $SCHED $*"
		for n in $(seq "$SERVERS"); do
			if [[ $net == fd00:: ]]; then
				echo "-a -t $svc -r [fd00::$((10 + n))]:80 -g -w 1"
			else
				echo "-a -t $svc -r 10.0.0.$((10 + n)):80 -g -w 1"
			fi
		done
	} | lb ipvsadm -R
	settle
}

# The grace period after a change: a few ticks, more on a slow machine.
settle() { nap 0.5; }

# start_loader: load.py in the client's namespace, which does what it is told to through a pipe.
start_loader() {
	mkfifo "$WORK/loader"
	nsenter --net=/run/netns/client -- python3 "$HERE/load.py" serve <"$WORK/loader" >/dev/null 9>&- &
	exec {LOADER}>"$WORK/loader"
}

# load WORDS...: what load.py prints.
load() {
	local out=$WORK/load.$BASHPID said
	mkfifo "$out"
	printf -v said '%q ' /dev/null "$out" "$@"
	echo "$said" >&"$LOADER"
	said=$(<"$out")
	rm "$out"
	[[ $said ]] && echo "$said"
}

# short N [OPTIONS]: N connections from as many addresses; prints JSON.
short() { load short "$@"; }

# keep_asking OPTIONS...: short connections in the background, until $! is killed. They leave the CPU to others
# now and then.
keep_asking() {
	nsenter --net=/run/netns/client -- python3 "$HERE/load.py" short 100000 --rest 0.02 "$@" >/dev/null 9>&- &
}

# serve N PROTO ADDRESS PORT: server N answers with its name there, too.
serve() {
	nsenter --net="/run/netns/rs$1" -- python3 "$HERE/serve.py" "$2" "$3" "$4" "rs$1" 9>&- &
	wait_for 20 serves "$@" || echo "# rs$1 does not serve $2"
}
serves() {
	case $2 in
	udp) in_ns "rs$1" ss -Hlun "sport = :$4" | grep -q . ;;
	sctp) in_ns "rs$1" grep -q " $4 " /proc/net/sctp/eps ;;
	esac
}

# count_routed: from now on, routed prints how many packets for port 80 were routed and came to lb.
count_routed() {
	lb nft -f - <<-NFT
		table inet seen {
			chain in {
				type filter hook input priority -300;
				tcp dport 80 counter
			}
		}
	NFT
}
routed() { lb nft -j list table inet seen | jq '[.nftables[].rule.expr // [] | .[].counter.packets // empty] | add'; }

# mark_101: packets to 10.0.0.101 get mark 1, those to fd00::101 mark 2.
mark_101() {
	lb nft -f - <<-NFT
		table inet m {
			chain pre {
				type filter hook prerouting priority mangle;
				ip daddr 10.0.0.101 meta mark set 1
				ip6 daddr fd00::101 meta mark set 2
			}
		}
	NFT
}

# stray N [OPTIONS]: TCP segments that belong to no connection.
stray() { load stray "$@"; }

# keep_sending OPTIONS...: such segments in the background, until $! is killed.
keep_sending() {
	nsenter --net=/run/netns/client -- python3 "$HERE/load.py" stray 0 "$@" >/dev/null 2>&1 9>&- &
}

# start_long N [OPTIONS]: connections that go on; they are told what to do through a pipe, and answer
# through another one.
start_long() {
	local said
	mkfifo "$WORK/ask" "$WORK/answer"
	printf -v said '%q ' "$WORK/ask" "$WORK/answer" long "$@"
	echo "$said" >&"$LOADER"
	exec 9>"$WORK/ask" {HEARD}<"$WORK/answer"
	long_answer >/dev/null
}

# long_answer: the next answer. Another one than that which was asked for would make all that follow late, too.
long_answer() {
	local line
	if ! IFS= read -rt 120 -u "$HEARD" line; then
		pkill -f 'load.py serve'
		return 1
	fi
	echo "$line"
}

# long_ask LINE: what load.py answers.
long_ask() {
	echo "$1" >&9
	long_answer
}
# long_status FIELD
long_status() { long_ask status | jq -r "$1"; }

stop_long() {
	exec 9>&-
	while read -rt 60 -u "$HEARD"; do :; done
	exec {HEARD}<&-
	rm -f "$WORK/ask" "$WORK/answer"
}

# one_line ARGUMENTS...: ipvsadm-mhs whose reader goes after a line ($WORK/line), also on standard error;
# the status of the tool.
one_line() {
	lb ipvsadm-mhs "$@" 2>&1 | head -n 1 >"$WORK/line"
	return "${PIPESTATUS[0]}"
}

# The kernel's own memory, KiB. Left out are the page cache and its like, which grow with what tests read,
# and what is free in slabs that hold something else, too: more of that after more has happened, and no loss.
kernel_memory() {
	awk '
	FILENAME ~ /meminfo/ && /^(SUnreclaim|VmallocUsed|Percpu):/ { sum += $2 }
	FILENAME ~ /slabinfo/ && FNR > 2 {
		file = "/sys/kernel/slab/" $1 "/reclaim_account"
		reclaimable = 0
		getline reclaimable <file
		close(file)
		if (!reclaimable) sum -= ($3 - $2) * $4 / 1024
	}
	END { printf "%d\n", sum }' /proc/meminfo /proc/slabinfo
}

# What that is made of, and where it is held: memory_map >FILE, then memory_growth FILE.
memory_map() {
	awk '
	FILENAME ~ /meminfo/ && /^(SUnreclaim|VmallocUsed|Percpu):/ { print $1, $2 }
	FILENAME ~ /slabinfo/ && FNR > 2 { print "slab:" $1, int($2 * $4 / 1024) }
	FILENAME ~ /vmallocinfo/ { vmalloc[$3] += $2 / 1024 }
	END { for (name in vmalloc) print "vmalloc:" name, int(vmalloc[name]) }
	' /proc/meminfo /proc/slabinfo /proc/vmallocinfo
}
memory_growth() {
	awk 'NR == FNR { was[$1] = $2; next } $2 - was[$1] > 64 { print $2 - was[$1], "KiB", $1 }' "$1" <(memory_map) |
		sort -rn | head -n 20 | sed 's/^/# grew by /'
}

# The servers take packets out of every kind of tunnel.
tunnel_ends() {
	local module n line
	for module in ipip ip_gre sit ip6_tunnel ip6_gre fou fou6; do modprobe -q $module; done
	for n in $(seq "$SERVERS"); do
		{
			for dev in tunl0 gre0 sit0; do echo "link set $dev up"; done
			echo "fou add port 5555 gue"
			echo "-6 fou add port 5555 gue"
			echo "-6 tunnel add t6 mode any local fd00::$((10 + n))"
			echo "link set t6 up"
		} | while read -r line; do
			# shellcheck disable=SC2086
			in_ns "rs$n" ip $line 2>/dev/null
		done
		in_ns "rs$n" sysctl -qw net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.gre0.rp_filter=0 \
			net.ipv4.conf.sit0.rp_filter=0 net.ipv4.conf.t6.rp_filter=0
	done
}

# no_boxes: every namespace goes, with what runs in it.
no_boxes() {
	local ns proc boxes=() lines=''
	exec 9>&- 2>/dev/null || true
	# The last words of jobs would only be that they were killed.
	disown -a
	for ns in /run/netns/*; do
		[[ ${ns##*/} =~ ^(sw|client|lb|rs[0-9]+|router|far|lb[0-9]|other[0-9]*)$ ]] || continue
		boxes+=("$ns")
		lines+="netns del ${ns##*/}"$'\n'
	done
	for proc in /proc/[0-9]*; do
		for ns in "${boxes[@]}"; do
			[[ ! $proc/ns/net -ef $ns ]] || kill -9 "${proc##*/}" 2>/dev/null
		done
	done
	[[ ! $lines ]] || ip -force -batch - <<<"$lines"
}

teardown() {
	no_boxes
	rm -rf "$WORK" /etc/modprobe.d/mhs-selftest.conf
	# A namespace goes away in the background; then the module is free.
	if [[ -d /sys/module/ip_vs_mhs ]]; then
		ok "the module can be unloaded" wait_for 60 rmmod ip_vs_mhs 2>/dev/null
	fi
	echo "1..$COUNT"
	((FAILED == 0)) || exit 1
}
