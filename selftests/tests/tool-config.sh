#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# ipvsadm-mhs add, edit and delete beside ipvsadm, in a namespace each: the same
# words must make the same configuration. And what makes no sense must change
# nothing, say so in one sentence, and end with the status that is documented.

. "$(dirname "$0")/../lib.sh"
trap teardown EXIT
modprobe ip_vs
modprobe ip_vs_mhs
for ns in lb1 lb2; do
	ip netns add $ns
	ip -n $ns link set lo up
done
ours() { ip netns exec lb1 ipvsadm-mhs "$@"; }
theirs() { ip netns exec lb2 ipvsadm "$@"; }
thresholds() { ip netns exec "$1" ipvsadm -Ln --thresholds | tail -n +4; }
# ipvsadm-save leaves thresholds out.
saved() { { ip netns exec "$1" ipvsadm-save -n && thresholds "$1"; } | sort; }

# same TEXT: both namespaces are configured alike, and at all.
same() {
	ok "$1" alike
	diff <(saved lb1) <(saved lb2)
}

alike() { [[ $(saved lb1) && $(saved lb1) == "$(saved lb2)" ]]; }

# both COMMAND LETTER ARGUMENTS...: the same words to both.
both() {
	local command=$1 letter=$2
	shift 2
	ours "$command" "$@" || echo "# status $?"
	theirs "$letter" "$@" || echo "# ipvsadm: status $?"
	same "$command $*"
}

both add -A -t $SVC -s mhs
both add -a -t $SVC -r 10.0.0.11:80 -g
both add -a -t $SVC -r 10.0.0.12 -g -w 3
both add -a -t $SVC -r 10.0.0.13:http -g -w 0 -x 100 -y 50
both add -a -t $SVC -r 10.0.0.14:8080 -m
both add -a -t $SVC -r 10.0.0.15:80 -i
both add -a -t $SVC -r 10.0.0.16:80 -i --tun-type gue --tun-port 6080
both add -a -t $SVC -r 10.0.0.17:80 -i --tun-type gue --tun-port 6080 --tun-remcsum
both add -a -t $SVC -r 10.0.0.18:80 -i --tun-type gre --tun-csum
both add -a -t $SVC -r [fd00::19]:80 -i
both add -A -u 10.0.0.100:53 -s mhs -o
both add -a -u 10.0.0.100:domain -r 10.0.0.11 -g
both add -A --sctp-service $SVC -s mhs
both add -A -t $SVC6 -s mhs -b flag-1,flag-2
both add -a -t $SVC6 -r [fd00::11]:80 -g
both add -a -t $SVC6 -r fd00::12 -g -w 5
both add -A -f 7 -s mhs -b flag-3
both add -a -f 7 -r 10.0.0.11 -g
both add -A -f 7 -6 -s mhs
both add -a -f 7 -6 -r [fd00::11]:0 -g
both add -A -t 10.0.0.100:443 -s rr -p
both add -A -t 10.0.0.100:444 -s rr -p 60 -M 255.255.255.0
both add -A -t 10.0.0.100:445 -s rr -p 2678400
both add -A -t [$VIP6]:443 -s mhs -p 60 -M 64
both add -A -t 10.0.0.101:0 -s mhs -p 60
both add -A -t localhost:80 -s mhs

# ipvsadm's edit says all; ours can say less.
both edit -E -t $SVC -s mh -b flag-1,flag-2
both edit -e -t $SVC -r 10.0.0.11:80 -g -w 9 -x 10 -y 5
before=$(saved lb1)
ours edit -t $SVC
ours edit -t $SVC -r 10.0.0.16:80
eq "an edit that says nothing changes nothing" "$(saved lb1)" "$before"
ours edit -t $SVC -r 10.0.0.11:80 -w 0
theirs -e -t $SVC -r 10.0.0.11:80 -g -w 0 -x 10 -y 5
same "only the weight"
ours edit -t $SVC -r 10.0.0.16:80 -w 4
theirs -e -t $SVC -r 10.0.0.16:80 -i --tun-type gue --tun-port 6080 -w 4
same "only the weight of a tunnel"
ours edit -t $SVC -b mh-port
theirs -E -t $SVC -s mh -b mh-port
same "a flag by its name"
ours edit -t $SVC -b none
theirs -E -t $SVC -s mh
same "no flags any more"
ours edit -t 10.0.0.100:443 -p 0 -s mhs
theirs -E -t 10.0.0.100:443 -s mhs
same "not persistent any more"
ours edit -u 10.0.0.100:53 --no-ops
theirs -E -u 10.0.0.100:53 -s mhs
same "not one-packet any more"

# Who names no scheduler gets that of the module.
ours add -t 10.0.0.102:80
theirs -A -t 10.0.0.102:80 -s mhs
same "the scheduler is mhs unless another is named"

# refused STATUS PATTERN ARGUMENTS...: ends so, with one line that says this.
refused() {
	local status=$1 pattern=$2 said rc=0
	shift 2
	said=$(ours "$@" 2>&1) || rc=$?
	eq "$*: status" $rc "$status"
	ok "$*: says '$pattern'" grep -qe "$pattern" <<<"$said"
	((status == 2)) || eq "$*: in one line" "$(wc -l <<<"$said")" 1
}
before=$(saved lb1)
refused 7 'is there already' add -t $SVC
refused 7 'is there already' add -t $SVC -r 10.0.0.11:80
refused 6 'no service TCP 10.0.0.9:80' edit -t 10.0.0.9:80 -s mh
refused 6 'no service TCP 10.0.0.9:80' edit -t 10.0.0.9:80 -r 10.0.0.11:80 -w 1
refused 6 'no service TCP 10.0.0.9:80' delete -t 10.0.0.9:80
refused 6 'no service TCP 10.0.0.9:80' add -t 10.0.0.9:80 -r 10.0.0.11:80
refused 6 'has no server 10.0.0.99:80' edit -t $SVC -r 10.0.0.99:80 -w 1
refused 6 'has no server 10.0.0.99:80' delete -t $SVC -r 10.0.0.99:80
refused 6 'no service has the server 10.0.0.99' drain 10.0.0.99
refused 6 'no scheduler xyzzy' add -t 10.0.0.9:80 -s xyzzy
# IPVS says the same of both.
refused 6 'no persistence engine xyzzy' add -t 10.0.0.9:80 -p --pe xyzzy
refused 2 'must be 0 to 2678400' add -t 10.0.0.9:80 -p 2678401
refused 2 'name a service' add
refused 2 'not an IPv6 address' add -t [10.0.0.9]:80
refused 2 'out of range: 0 to 65535' add -t 10.0.0.9:65536
refused 2 'neither a port' add -t 10.0.0.9:no-such-port
refused 2 'only a persistent service' add -t 10.0.0.9
refused 2 "not a flag of a scheduler" add -t 10.0.0.9:80 -b mh-prot
refused 2 'not a netmask' add -t 10.0.0.9:80 -p -M 255.0.255.0
refused 2 'not a firewall mark' add -f 0
refused 2 'needs --tun-port' add -t $SVC -r 10.0.0.20 -i --tun-type gue
refused 2 'is above the upper' add -t $SVC -r 10.0.0.20 -x 5 -y 9
refused 2 '65536 is not in 0..=65535' add -t $SVC -r 10.0.0.20 -w 65536
refused 2 '^  --real-server <SERVER>' add -t $SVC -w 1
rc=0
said=$(ip netns exec lb1 setpriv --bounding-set -all --inh-caps -all --ambient-caps -all \
	ipvsadm-mhs add -t 10.0.0.9:80 2>&1) || rc=$?
eq "without privilege: status" $rc 4
ok "without privilege: says so" grep -q 'not permitted.*CAP_NET_ADMIN' <<<"$said"
eq "what is refused changes nothing" "$(saved lb1)" "$before"

both delete -d -t $SVC -r 10.0.0.12:80
both delete -d -t $SVC6 -r [fd00::11]:80
both delete -d -f 7 -r 10.0.0.11
both delete -D -t $SVC
both delete -D -f 7 -6
both delete -D --sctp-service $SVC

# drain and replace, over several services.
ours add -t 10.0.0.103:80
ours add -t 10.0.0.103:443
for port in 80 443; do
	ours add -t 10.0.0.103:$port -r 10.0.0.41 -i --tun-type gue --tun-port 6080 -w 6 -x 9
	ours add -t 10.0.0.103:$port -r 10.0.0.42 -g -w 2
done
of() { ip netns exec lb1 ipvsadm-save -n | grep -- "-r $1:"; }
ours drain 10.0.0.42:443
eq "drain: only that port" "$(of 10.0.0.42 | sort)" \
	"$(printf -- '-a -t 10.0.0.103:443 -r 10.0.0.42:443 -g -w 0\n-a -t 10.0.0.103:80 -r 10.0.0.42:80 -g -w 2')"
ours replace 10.0.0.41 10.0.0.43
like=$(of 10.0.0.43)
eq "replace: the new one is like the old one, in both services" "$(sort <<<"$like")" \
	"$(printf -- '-a -t 10.0.0.103:%s -i -w 6 --tun-type gue --tun-port 6080 --tun-nocsum\n' '443 -r 10.0.0.43:443' '80 -r 10.0.0.43:80')"
eq "replace: with its threshold" \
	"$(thresholds lb1 | awk 'index($2, "10.0.0.43:") == 1 { print $2, $3, $4 }' | sort)" \
	"$(printf '10.0.0.43:%s 9 0\n' 443 80)"
eq "replace: the old one is drained there" "$(of 10.0.0.41 | grep -c -- '-w 0')" 2
before=$(saved lb1)
refused 7 'is there already' replace 10.0.0.42:80 10.0.0.43
refused 2 'in its own place' replace 10.0.0.42:80 10.0.0.42:80
refused 2 'has weight 0' replace 10.0.0.41 10.0.0.44
eq "replace: what is refused changes nothing" "$(saved lb1)" "$before"
