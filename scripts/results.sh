# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Running tests and counting what came of them, for the scripts that do. To be sourced after env.sh.

passed=0 failed=0
result() {
	if (($1 == 0)); then
		passed=$((passed + 1))
		echo "ok: $2"
	else
		failed=$((failed + 1))
		echo "not ok: $2"
	fi
}

mkdir -p "$TOP/build"

# count LOG PATTERN
count() { grep -cE "$2" "$1" || true; }

# tap FILE: counts the results of a KTAP stream.
streams=()
tap() {
	streams+=("$1")
	good=$(count "$1" '^ok ')
	bad=$(count "$1" '^not ok ')
	passed=$((passed + good)) failed=$((failed + bad))
}

# reported NAME FILE: the results of a KTAP stream, and whether it has as many as it should.
reported() {
	local plan
	tap "$2"
	plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$2" | tail -n 1)
	result $((${plan:-0} != good + bad || good + bad == 0)) "$1: every test reported"
}

# kernel_log NAME FILE
kernel_log() {
	local rc=0
	"$TOP/scripts/kmsg-check" "$2" || rc=$?
	result "$rc" "$1: kernel log"
}

# kunit KIND
kunit() {
	local out=$TOP/build/kunit-$1.ktap rc=0
	say "KUnit suites in $1"
	"$TOP/scripts/guest" "$1" --timeout 300 --log "$TOP/build/kunit-$1.log" -- bash -ec \
		'modprobe ip_vs; dmesg -C; modprobe ip_vs_mhs_kunit; dmesg --color=never; rmmod ip_vs_mhs_kunit' |
		sed -n 's/^\[[^]]*\] \{5,\}\(ok\|not ok\) /\1 /p' | tee "$out" || rc=$?
	tap "$out"
	result $((rc || good + bad != $(count "$TOP/kunit/ip_vs_mhs_kunit.rs" '#\[test\]'))) \
		"KUnit in $1: every test reported"
	kernel_log "KUnit in $1" "$TOP/build/kunit-$1.log"
}

# Again with express mode on: what may differ there.
EXPRESS=(changes drained edges hashing hostile icmp marks options protocols rules save skew stateful stateless)

# These need what the stock kernel has not: fault injection, and checks of memory.
NOT_STOCK=(faults fuzz)
# Parts of make torture.
APART=(jet oracle torture)

# An emulated machine takes many times as long. Of the stock kernel it is to be shown that the module
# loads there, that all it hooks into and every field it reads are where it thinks they are, and that
# tools talk to it: that is what make test runs there. make torture runs everything there, too.
STOCK=(changes express ftp handover icmp keepalived lifecycle local marks mixed options
	protocols reload save stateful stateless switch sync tool-config tool-read tool-steer tunnels
	express:marks express:stateless)

# Those that take minutes. They begin, dealt out like this: 0 1 2 2 1 0.
SLOW=(flapping toggle flood netlink many edges icmp reload skew)

# Guests wait more than they work, so a few of them run side by side, each with some of the
# scripts. shard NAME GUEST SCRIPT...: one of them. The stock kernel can wait: its clock stands still
# meanwhile. LONGEST is how many seconds a guest may take.
LONGEST=4500
shard() {
	local name=$1 kind=$2 rc=0 nice=() timeout=$LONGEST limit=900
	shift 2
	# What checks itself takes its time.
	[[ $kind != debug ]] || timeout=12000 limit=3000
	[[ $kind != stock ]] || nice=(nice)
	"${nice[@]}" "$TOP/scripts/guest" "$kind" --paced --timeout "$timeout" --log "$TOP/build/$name.log" -- \
		env LIMIT="$limit" bash run.sh "$@" 2>"$TOP/build/$name.err" |
		tee "$TOP/build/$name.ktap" | sed -u "s/^/$name: /" || rc=$?
	((rc == 0)) || sed "s/^/$name: /" "$TOP/build/$name.err"
}

# selftests KIND GUESTS [some]: starts them in the background, in so many guests; see selftests_done. Of
# stock, some are those of $STOCK.
shards=()
selftests() {
	local kind=$1 guests=$2 all=("${SLOW[@]}") run=() name i j place mine
	for name in "$TOP"/selftests/tests/*.sh; do
		name=$(basename "$name" .sh)
		[[ " ${SLOW[*]} ${APART[*]} " == *" $name "* ]] || all+=("$name")
	done
	all+=("${EXPRESS[@]/#/express:}")
	for name in "${all[@]}"; do
		[[ $kind == stock && " ${NOT_STOCK[*]} " == *" $name "* ]] && continue
		[[ $kind == stock && ${3-} == some && " ${STOCK[*]} " != *" $name "* ]] && continue
		run+=("$name")
	done
	say "not in $kind: $(printf '%s\n' "${APART[@]}" "${all[@]}" | grep -vxFf <(printf '%s\n' "${run[@]}") | xargs)"
	for ((i = 0; i < guests; i++)); do
		mine=()
		for ((j = 0; j < ${#run[@]}; j++)); do
			place=$((j % guests))
			((j / guests % 2 == 0)) || place=$((guests - 1 - place))
			((place != i)) || mine+=("${run[j]}")
		done
		shard "$kind.$i" "$kind" "${mine[@]}" &
		shards+=("$kind.$i")
	done
}

# What came of the selftests, once nothing is left in the background.
selftests_done() {
	local name
	for name in "${shards[@]}"; do
		reported "$name" "$TOP/build/$name.ktap"
		kernel_log "$name" "$TOP/build/$name.log"
	done
}

# What failed, once more, and the line that counts.
summary() {
	if ((failed)); then grep -hE '^(not ok|# got)' "${streams[@]}" || true; fi
	echo "$passed passed, $failed failed"
	((failed == 0 && passed > 0))
}
