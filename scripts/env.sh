# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The environments: build root, kernels, guest root. To be sourced; each
# function sees to it that its part is in the cache, and sets the variable of
# the same name to its directory.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What both the root to build in and that of the guests have, and what each has besides.
BASE_PACKAGES="ca-certificates,kmod,python3,xz-utils,busybox-static"
BUILD_PACKAGES="build-essential,gcc-14,bc,flex,bison,libelf-dev,libssl-dev,cpio,rustc,rust-src,rustfmt,rust-clippy,bindgen,clang-19,libclang-19-dev,lld-19,llvm-19,rsync,perl,dwarves,shellcheck"
GUEST_PACKAGES="iproute2,ipvsadm,nginx-light,curl,socat,procps,tcpdump,ethtool,iptables,iputils-ping,keepalived,util-linux,jq,bird2,vsftpd,python3-scapy,nftables,python3-yaml,python3-jsonschema,tmux,python3-prometheus-client"

# The Debian mirror that this machine uses.
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(RELEASE)' 'Created-By: Packages' |
		awk '$2 == "Debian" && $3 !~ /security/ { print $1; exit }'
}
trixie() {
	local from
	from=$(mirror)
	[[ $from ]] || { echo "no Debian mirror among the sources of apt; run apt-get update" >&2; return 1; }
	printf 'deb %s %s main\n' "$from" trixie "$from" trixie-updates "$from" trixie-backports
}

build_base() {
	local sources
	sources=$(trixie) || return
	mmdebstrap --variant=minbase --include="$BASE_PACKAGES" --aptopt='Acquire::Check-Valid-Until "false"' \
		trixie "$1/root" - <<<"$sources"
	cp /etc/resolv.conf "$1/root/etc/resolv.conf"
	printf 'Acquire::Check-Valid-Until "false";\nAPT::Sandbox::User "root";\n' \
		>"$1/root/etc/apt/apt.conf.d/90mhs"
}
baseroot() {
	need mmdebstrap debian-archive-keyring
	cached baseroot "make a trixie root" "$BASE_PACKAGES" build_base
}

# derive DIRECTORY PACKAGES: a root that has these, too.
derive() {
	local dir=$1 packages=${2//,/ }
	cp -a "$baseroot/root" "$dir/root"
	in_root "$dir/root" apt-get -q update
	# A root that is not whole is begun anew, so nothing need be on the disk at once.
	# shellcheck disable=SC2086
	in_root "$dir/root" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
		-o Dpkg::Options::=--force-unsafe-io install $packages
	in_root "$dir/root" sh -c 'apt-get clean; rm -rf /var/lib/apt/lists/*'
}

build_root() { derive "$1" "$BUILD_PACKAGES"; }
buildroot() {
	baseroot
	cached buildroot "make a trixie root to build in" "$BASE_PACKAGES $BUILD_PACKAGES" build_root
}

# trixie_apt DIRECTORY COMMAND...: apt of this machine, but for trixie, with all that it keeps in a directory.
trixie_apt() {
	local apt=$1
	shift
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/etc"
	trixie >"$apt/etc/sources.list"
	"$1" -q -o Dir::Etc::sourcelist="$apt/etc/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
		-o Dir::Etc::trusted=/usr/share/keyrings/debian-archive-keyring.gpg -o Dir::Etc::trustedparts=- \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
		-o Acquire::Check-Valid-Until=false "${@:2}"
}

# The newest version of the series; asked for once a day.
version() {
	local file=$CACHE/version-$SERIES
	need debian-archive-keyring
	if [[ -z $(find "$file" -mtime -1 2>/dev/null) ]]; then
		if ! step "look for the newest kernel $SERIES" resolve "$file"; then
			[[ -s $file ]] || exit 1
			say "going on with $(cat "$file")"
		fi
	fi
	VERSION=$(cat "$file")
	RELEASE=$VERSION-cloud-amd64
}

resolve() {
	exec {apt}>"$CACHE/apt.lock"
	flock "$apt"
	trixie_apt "$CACHE/apt" apt-get update
	trixie_apt "$CACHE/apt" apt-cache search --names-only \
		"^linux-headers-${SERIES//./\\.}\\.[0-9]+.*-cloud-amd64\$" |
		sed 's/^linux-headers-\(.*\)-cloud-amd64 .*/\1/' | sort -V | tail -n 1 >"$1.new"
	[[ -s $1.new ]] || { echo "trixie-backports has no kernel $SERIES; try KERNEL=7.3 or KERNEL=7.2"; return 1; }
	mv "$1.new" "$1"
}

# fetch DIRECTORY PACKAGE...: the packages themselves.
fetch() {
	exec {apt}>"$CACHE/apt.lock"
	flock "$apt"
	trixie_apt "$CACHE/apt" apt-get update
	(cd "$1" && trixie_apt "$CACHE/apt" apt-get download "${@:2}")
	exec {apt}>&-
}

fetch_kernel() {
	local dir=$1 package
	mkdir -p "$dir/debs" "$dir/package" "$dir/headers"
	fetch "$dir/debs" "linux-binary-$RELEASE" "linux-modules-$RELEASE" "linux-headers-$RELEASE" \
		"linux-source-$SERIES"
	for package in "$dir"/debs/linux-{binary,modules}-*.deb; do
		dpkg-deb -x "$package" "$dir/package"
	done
	dpkg-deb -x "$dir"/debs/linux-headers-*.deb "$dir/headers"
	dpkg-deb --fsys-tarfile "$dir"/debs/linux-source-*.deb |
		tar -x -O "./usr/src/linux-source-$SERIES.tar.xz" | tar -xJ -C "$dir"
	mv "$dir/linux-source-$SERIES" "$dir/source"
	rm -rf "$dir/debs"
	depmod -b "$dir/package/usr" "$RELEASE"
}
kernel() {
	need kmod xz-utils
	version
	cached kernel "fetch Linux $VERSION: package and source" "$RELEASE" fetch_kernel
}

# Packaged headers have no Rust metadata. From the same source with the same
# configuration and compiler it comes out the same.
regenerate() {
	local dir=$1 headers=$kernel/headers/usr/src/linux-headers-$RELEASE
	local make=(make -C "$kernel/source" O="$dir" KERNELRELEASE="$RELEASE" CC=gcc-14 HOSTCC=gcc-14)
	cp "$headers/.config" "$headers/Module.symvers" "$dir/"
	in_root "$buildroot/root" "${make[@]}" olddefconfig
	# A tool that is missing here turns options off, and changes structures.
	if ! diff <(grep -v CC_VERSION_TEXT "$headers/.config") <(grep -v CC_VERSION_TEXT "$dir/.config"); then
		echo "the configuration is not the package's: the build root lacks a tool"
		return 1
	fi
	in_root "$buildroot/root" "${make[@]}" -j"$(nproc)" prepare modules_prepare
}
stock() {
	buildroot
	kernel
	cached stock "regenerate the Rust metadata of $RELEASE" "${kernel##*/} ${buildroot##*/}" regenerate
}

# The checker of C. Not in the build root, which would make every kernel anew.
fetch_sparse() {
	fetch "$1" sparse
	dpkg-deb -x "$1"/sparse_*.deb "$1"
}
sparse() {
	buildroot
	cached sparse "fetch sparse" "${buildroot##*/}" fetch_sparse
}

# um_kernel DIRECTORY CONFIGURATION MAKE_ARGUMENT...
um_kernel() {
	local dir=$1 config=$2
	local make=(make -C "$kernel/source" O="$dir" ARCH=um "${@:3}")
	printf '%s\n' "$config" >"$dir/wanted.config"
	in_root "$buildroot/root" "${make[@]}" KCONFIG_ALLCONFIG="$dir/wanted.config" allnoconfig
	# What was asked for and not given would be missed only by what it should have found.
	if grep -vxFf "$dir/.config" <(grep -E '^CONFIG_.*=' "$dir/wanted.config"); then
		echo "the kernel has these options no more, or not with these others"
		return 1
	fi
	in_root "$buildroot/root" "${make[@]}" -j"$(nproc)" all
	in_root "$buildroot/root" "${make[@]}" INSTALL_MOD_PATH="$dir/package/usr" modules_install
}

# um_config KIND: how that kernel is configured.
um_config() {
	cat "$TOP/scripts/uml.config"
	[[ $1 != debug ]] || grep -v LOCALVERSION= "$TOP/scripts/smp.config"
	cat "$TOP/scripts/$1.config"
}

# User-mode Linux in virtual time, which has one CPU, and one in real time that may have more.
UM_MAKE=(CC=gcc-14 HOSTCC=gcc-14)
build_um() { um_kernel "$1" "$(um_config um)" "${UM_MAKE[@]}"; }
um() {
	buildroot
	kernel
	cached um "build a user-mode Linux $VERSION in virtual time" \
		"${kernel##*/} $(um_config um) $(declare -f um_kernel)" build_um
}
build_smp() { um_kernel "$1" "$(um_config smp)" "${UM_MAKE[@]}"; }
smp() {
	buildroot
	kernel
	cached smp "build a user-mode Linux $VERSION with several CPUs" \
		"${kernel##*/} $(um_config smp) $(declare -f um_kernel)" build_smp
}

# Rust with KASAN needs clang. That puts data into sections of their own for the code model of user-mode
# Linux, of which the linker script knows nothing: lockdep would take keys for none, kmemleak not look there.
# Not in modules: those are far from the kernel's data, and all of their sections are known.
DEBUG_MAKE=(LLVM=-19 CFLAGS_KERNEL="-mlarge-data-threshold=2147483647" KCFLAGS="-Wno-unused-command-line-argument")
# A checking kernel keeps the stack of each allocation and of each that ends it. User-mode Linux looks at all
# words of the stack for that, and asks of each whether it is code, which takes longer than all else
# together: what cannot be code is ruled out at once.
STACK_WORDS='#include <linux/kernel.h>
#include <linux/pgtable.h>
#include <asm/sections.h>
static inline bool may_be_text(unsigned long addr)
{
	return (addr >= (unsigned long)_stext && addr < (unsigned long)_etext) ||
	       (addr >= VMALLOC_START && addr < VMALLOC_END);
}
#define __kernel_text_address(addr) (may_be_text(addr) && __kernel_text_address(addr))'
# When areas of vmalloc have been given back, KASAN forgets what it knew of each, and then has the TLB flushed
# from the lowest to the highest of them. User-mode Linux has nothing to flush there, but takes it as said of all
# that lies between, which it fills: half an address space, when some were of per-CPU memory, which is at its end.
# The host has not that much memory.
VMALLOC_FLUSH='#include <linux/kasan.h>
#include <linux/vmalloc.h>
#define kasan_release_vmalloc(start, end, free_start, free_end, flags) do {		\
	if ((flags) & KASAN_VMALLOC_PAGE_RANGE)						\
		kasan_release_vmalloc(start, end, free_start, free_end, flags);		\
} while (0)'
build_debug() {
	echo "$STACK_WORDS" >"$1/stack_words.h"
	echo "$VMALLOC_FLUSH" >"$1/vmalloc_flush.h"
	um_kernel "$1" "$(um_config debug)" \
		"${DEBUG_MAKE[@]}" CFLAGS_stacktrace.o="-include $1/stack_words.h" \
		CFLAGS_vmalloc.o="-include $1/vmalloc_flush.h"
}
debug() {
	buildroot
	kernel
	cached debug "build a user-mode Linux $VERSION that checks itself" \
		"${kernel##*/} $(um_config debug) ${DEBUG_MAKE[*]} $STACK_WORDS $VMALLOC_FLUSH $(declare -f um_kernel)" build_debug
}

build_guest_root() {
	derive "$1" "$GUEST_PACKAGES"
	mkdir -p "$1/root/host" "$1/root/payload" "$1/root/overlay"
	cat >"$1/root/mhs-init" <<-'INIT'
		#!/bin/bash
		# The first process of user-mode Linux: make the root writable in
		# memory, then do as the host says.
		mount -t proc proc /proc
		for word in $(cat /proc/cmdline); do
			case $word in mhs.dir=*) dir=${word#mhs.dir=} ;; esac
		done
		mount -t tmpfs tmpfs /overlay
		mkdir /overlay/upper /overlay/work /overlay/root
		mount -t overlay -o lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work \
			overlay /overlay/root
		mount -t hostfs -o hostfs="$dir" none /overlay/root/host
		exec chroot /overlay/root /bin/bash /host/start
	INIT
	chmod +x "$1/root/mhs-init"
}
guestroot() {
	baseroot
	cached guestroot "make a trixie root for the guests" "$BASE_PACKAGES $GUEST_PACKAGES" build_guest_root
}

build_image() {
	local size
	# Room for the inodes and the journal-less file system's own needs.
	size=$(du -sm "$guestroot/root" | cut -f1)
	truncate -s $((size * 3 / 2 + 64))M "$1/root.ext4"
	mke2fs -q -t ext4 -O ^has_journal -d "$guestroot/root" "$1/root.ext4"
}
image() {
	need e2fsprogs
	guestroot
	cached image "make a disk of the guest root" "$guestroot" build_image
}

# The same as an archive, for a guest that is to do the same each time: it gets all with its kernel, and never
# waits for a disk, which takes the host another while each time.
build_ramroot() {
	(cd "$guestroot" && find root -xdev -print0 | LC_ALL=C sort -z |
		cpio -0 -o -H newc --reproducible --quiet) >"$1/root.cpio"
}
ramroot() {
	need cpio
	guestroot
	cached ramroot "make an archive of the guest root" "$guestroot" build_ramroot
}

# The first file system of the stock kernel: find the disk, or what came with the kernel instead, make it
# writable in memory, do as the host says.
build_initramfs() {
	local dir=$1 modules=$kernel/package/usr/lib/modules/$RELEASE module
	mkdir -p "$dir/fs/bin" "$dir/fs/proc" "$dir/fs/dev" "$dir/fs/disk" "$dir/fs/overlay" "$dir/fs/host"
	cp "$baseroot/root/usr/bin/busybox" "$dir/fs/bin/"
	for module in drivers/block/virtio_blk fs/overlayfs/overlay; do
		xz -dc "$modules/kernel/$module.ko.xz" >"$dir/fs/${module##*/}.ko"
	done
	cat >"$dir/fs/init" <<-'INIT'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		if grep -q mhs.probe /proc/cmdline; then
			echo booted >/dev/ttyS0
			poweroff -f
		fi
		insmod /overlay.ko
		disk=/root
		if [ ! -d $disk/usr ]; then
			insmod /virtio_blk.ko
			while [ ! -b /dev/vda ]; do sleep 0.1; done
			disk=/disk
			mount -t ext4 -o ro /dev/vda $disk
		fi
		mount -t tmpfs tmpfs /overlay
		mkdir /overlay/upper /overlay/work /overlay/root
		mount -t overlay -o lowerdir=$disk,upperdir=/overlay/upper,workdir=/overlay/work \
			overlay /overlay/root
		cp -a /host /overlay/root/
		exec chroot /overlay/root /bin/bash /host/start
	INIT
	chmod +x "$dir/fs/init"
	(cd "$dir/fs" && find . | cpio -o -H newc --quiet) >"$dir/initramfs.cpio"
}
initramfs() {
	need cpio
	baseroot
	kernel
	cached initramfs "make an initramfs for $RELEASE" "${kernel##*/} ${baseroot##*/}" build_initramfs
}

# KVM where this kernel boots with it, else TCG; ACCEL=tcg or ACCEL=kvm decides
# otherwise. The answer holds for this machine, QEMU and kernel.
accelerator() {
	local key
	accelerator=${ACCEL:-tcg}
	if [[ ${ACCEL-} || ! -w /dev/kvm ]]; then
		return
	fi
	key=$({ uname -rvn; qemu-system-x86_64 --version; grep -m1 'model name' /proc/cpuinfo
		echo "$RELEASE"; declare -f probe_kvm; } | sha256sum | cut -c1-16)
	if [[ ! -s $CACHE/accelerator-$key ]]; then
		step "see whether KVM can boot $RELEASE" probe_kvm "$CACHE/accelerator-$key"
	fi
	accelerator=$(cat "$CACHE/accelerator-$key")
}
# All that a guest of the stock kernel is made of.
machine() {
	need qemu-system-x86
	kernel
	initramfs
	accelerator
	if [[ $accelerator == tcg ]]; then ramroot; else image; fi
}
probe_kvm() {
	echo tcg >"$1.new"
	if timeout -k 5 15 qemu-system-x86_64 -nodefaults -no-reboot -display none \
		-accel kvm -cpu host -smp 2 -m 512M -serial stdio \
		-kernel "$kernel/package/usr/lib/modules/$RELEASE/vmlinuz" \
		-initrd "$initramfs/initramfs.cpio" \
		-append "console=ttyS0 panic=-1 quiet mhs.probe" </dev/null |
		tee /dev/stderr | grep -q booted; then
		echo kvm >"$1.new"
	fi
	mv "$1.new" "$1"
}
