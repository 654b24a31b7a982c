#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# run.sh [TEST...]: runs all tests, or those named, and prints one KTAP stream. express:TEST is a
# test with express mode on. Where the kernel looks for memory that nobody points to, that is a result too.

cd "$(dirname "$0")" || exit 1
n=0 failed=0
leaks=/sys/kernel/debug/kmemleak

# What kmemleak finds in two scans: an object must be 5 s old, and seen without a pointer twice.
leaked() {
	local _
	for _ in 1 2; do
		sleep 6
		# It is off for good once there was no memory for itself.
		echo scan >$leaks || { echo "kmemleak is off"; return 1; }
	done
	! grep . $leaks
}

# What the machine has done: seconds that it is up, and processes.
used() {
	local up key value
	read -r up _ </proc/uptime
	while read -r key value _; do
		[[ $key != processes ]] || echo "${up%.*} $value"
	done </proc/stat
}

echo "KTAP version 1"
for script in "${@:-tests/*.sh}"; do
	for file in $script; do
		name=$(basename "$file" .sh)
		export EXPRESS=
		if [[ $name == express:* ]]; then EXPRESS=1; fi
		[[ -e $file ]] || file=tests/${file#express:}.sh
		results=$n status=255 last='' before=$(used)
		echo "# $name"
		while IFS= read -r line; do
			case $line in
			"ok "* | "not ok "*)
				n=$((n + 1))
				[[ $line == not* ]] && failed=$((failed + 1))
				text=${line#*ok }
				echo "${line%%ok *}ok $n $name: ${text#* }"
				;;
			1..*) ;;
			"# ended with "*) status=${line##* } ;;
			*) echo "# ${line#\# }" ;;
			esac
			[[ $line == "# ended with "* || ! $line ]] || last=$line
		done < <(timeout -k 5 "${LIMIT:-900}" bash "$file" 2>&1; echo "# ended with $?")
		results=$((n - results))
		n=$((n + 1))
		# A script that stopped in the middle has no results, or left namespaces behind.
		if ((results == 0 || status > 1)) || compgen -G "/run/netns/*" >/dev/null; then
			failed=$((failed + 1))
			if ((status == 124 || status == 137)); then
				echo "# $name took longer than ${LIMIT:-900} s; its last line: $last"
			fi
			echo "not ok $n $name: ran to its end"
			for ns in $(ip netns list | awk '{ print $1 }'); do
				ip netns pids "$ns" | xargs -r kill -9
				ip netns del "$ns"
			done
			# Not the next one's fault: it may begin without the module.
			for _ in $(seq 20); do
				[[ -d /sys/module/ip_vs_mhs ]] || break
				rmmod ip_vs_mhs 2>/dev/null || sleep 1
			done
		else
			echo "ok $n $name: ran to its end"
		fi
		after=$(used)
		echo "# $name took $((${after% *} - ${before% *})) s and $((${after#* } - ${before#* })) processes"
		[[ -e $leaks ]] || continue
		n=$((n + 1))
		if found=$(leaked); then
			echo "ok $n $name: no memory is lost"
		else
			failed=$((failed + 1))
			echo "$found" | sed 's/^/# /'
			echo "not ok $n $name: no memory is lost"
			echo clear >$leaks
		fi
	done
done
echo "1..$n"
((failed == 0))
