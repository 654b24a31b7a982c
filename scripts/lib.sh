# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Progress, errors and the cache, for the other scripts. To be sourced.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${MHS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ip_vs_mhs}
SERIES=${KERNEL:-7.3}
# Where build roots have the checkout, wherever that is: what is built says where its sources were.
ANYWHERE=/ip_vs_mhs
mkdir -p "$CACHE"

say() { printf '%s\n' "== $*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step TEXT COMMAND...: runs a command with its output in a log, showing that
# it is alive; on failure shows the end of the log.
step() {
	local text=$1 log pid started=$SECONDS rc=0
	shift
	# Of a step that failed the log is kept; who was killed leaves one, too, and its own directory.
	find "$CACHE" -maxdepth 1 -regex '.*/\(log\|guest\|tool\|plain\)\.[^/]*' -mtime +7 -exec rm -rf {} +
	log=$(mktemp "$CACHE/log.XXXXXX")
	printf '== %s ' "$text" >&2
	("$@") >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		if (((SECONDS - started) % 10 == 9)); then printf . >&2; fi
	done
	wait "$pid" || rc=$?
	printf ' %ds\n' $((SECONDS - started)) >&2
	if ((rc)); then
		tail -n 25 "$log" >&2
		printf 'error: step failed: %s\n' "$text" >&2
		printf 'The whole log is %s; running the same command again goes on from here.\n' \
			"$log" >&2
		exit 1
	fi
	rm -f "$log"
}

# cache_dir NAME INPUTS FUNCTION: sets the variable NAME to a directory. Its key is
# INPUTS and the text of the function.
cache_dir() {
	local key
	key=$({ printf '%s\n' "$2"; declare -f "$3"; } | sha256sum | cut -c1-16)
	printf -v "$1" %s "$CACHE/$1-$key"
}

# cached NAME TEXT INPUTS FUNCTION: sets the variable NAME to a directory that
# FUNCTION "$dir" has filled, see cache_dir. A directory counts only with the marker
# that is written last, so a build that was killed is begun anew; whoever comes
# meanwhile waits.
cached() {
	local name=$1 text=$2 inputs=$3 build=$4 dir
	cache_dir "$name" "$inputs" "$build"
	dir=${!name}
	if [[ -e $dir/.complete ]]; then
		return
	fi
	# The build inherits the lock: one whose parent was killed is waited for too.
	exec {lock}>"$CACHE/$name.lock"
	if ! flock -n "$lock"; then
		say "wait for another build of $name"
		flock "$lock"
	fi
	if [[ ! -e $dir/.complete ]]; then
		rm -rf --one-file-system "$dir"
		mkdir -p "$dir"
		step "$text" "$build" "$dir"
		touch "$dir/.complete"
	fi
	exec {lock}>&-
}

# need PACKAGE...: installs Debian packages that are missing on this machine.
need() {
	local package missing=()
	for package; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
			grep -q 'ok installed' || missing+=("$package")
	done
	if ((${#missing[@]})); then
		((EUID == 0)) || die "missing packages; as root: apt-get install ${missing[*]}"
		step "install ${missing[*]}" install_packages "${missing[@]}"
	fi
}

# need_rust [PACKAGE...]: cargo, as new as the sources need it, and its parts. One that is there already is
# used, wherever it is from.
need_rust() {
	local wanted=1.85 version
	command -v cargo >/dev/null || need cargo "$@"
	version=$(rustc --version | cut -d ' ' -f 2)
	printf '%s\n' "$wanted" "$version" | sort -C -V ||
		die "Rust $version is too old, $wanted is needed: Debian 13 has it, elsewhere rustup"
}

install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	# One at a time: jobs that run side by side may each need something.
	exec {apt}>"$CACHE/apt.lock"
	flock "$apt"
	apt-get -q update
	apt-get -q -y --no-install-recommends install "$@"
}

# leashed COMMAND...: runs a command that ends with all that it started when this script does, however that
# ends.
leashed() { setpriv --pdeathsig KILL unshare --pid --fork --kill-child "$@"; }

# contained COMMAND...: the same for what takes long, with its own view of processes, and also when this script
# is asked to end.
contained() {
	local pid rc=0
	# As leashed does, but as a child of this very process. The first process of the new ones must wait for those
	# that nobody else waits for.
	setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc \
		bash -c '"$@"; exit $?' - "$@" &
	pid=$!
	# shellcheck disable=SC2064
	trap "kill -KILL $pid 2>/dev/null; exit 130" INT TERM HUP
	wait "$pid" || rc=$?
	trap - INT TERM HUP
	return "$rc"
}

# in_root ROOT COMMAND...: runs a command in a root directory that sees the
# cache and the checkout at the paths they have here, and the checkout at one that
# is the same for all of them, too. Mounts go with it.
in_root() {
	local root=$1
	shift
	mkdir -p "$root$CACHE" "$root$TOP" "$root$ANYWHERE"
	leashed --mount --propagation private bash -c '
		root=$1 cache=$2 top=$3 anywhere=$4
		shift 4
		mount --bind "$cache" "$root$cache"
		mount --bind "$top" "$root$top"
		mount --bind "$top" "$root$anywhere"
		mount -t proc proc "$root/proc"
		mkdir -p "$root/dev/shm"
		mount -t tmpfs tmpfs "$root/dev/shm"
		exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			HOME=/root LC_ALL=C.UTF-8 LIBCLANG_PATH=/usr/lib/llvm-19/lib "$@"
	' - "$root" "$CACHE" "$TOP" "$ANYWHERE" "$@"
}
