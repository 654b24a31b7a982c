# SPDX-License-Identifier: GPL-2.0
#
# The front door. Kbuild describes the module itself.

KDIR ?= /lib/modules/$(shell uname -r)/build

help:
	@echo 'On this machine, in guests, nothing to set up (KERNEL=7.3 or 7.2):'
	@echo '  make demo             what the balancer does, beside in-tree mh'
	@echo '  make test             everything that proves it'
	@echo '  make test ONLY=changes          one selftest, or some'
	@echo '  make test FILE=src/stats.rs     what a change of that file touches'
	@echo '  make torture          what takes hours: debug kernel, broken on purpose, fuzzing, ...'
	@echo '  make bench            what it costs: build/bench.json and the figures of'
	@echo '                        Documentation/performance.rst (scripts/bench has more)'
	@echo '  make lint             formatting, clippy, sparse, checkpatch, shellcheck'
	@echo '  make doc              build/doc/index.html: the manual, from Documentation/'
	@echo '  make stock, make um   build/stock/ip_vs_mhs.ko, build/um/ip_vs_mhs.ko'
	@echo '  make debug            build/debug/ip_vs_mhs.ko, for a kernel that checks itself'
	@echo '  make tool             build/tool/ipvsadm-mhs, its man pages and completions'
	@echo '  make install          ... and put them below PREFIX (/usr/local)'
	@echo '  make clean-cache      remove kernels and roots from the cache'
	@echo 'On Debian 13, with a kernel tree that has Rust metadata (Documentation/operations/install.rst):'
	@echo '  make modules KDIR=... build the module'
	@echo '  make modules_install  put it where modprobe finds it'

modules modules_install clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

# With KDIR given, plain make builds the module.
ifeq ($(origin KDIR),command line)
.DEFAULT_GOAL := modules
endif

stock um debug:
	scripts/build $@

tool:
	scripts/tool

install:
	scripts/tool --install $(DESTDIR)

demo: stock
	scripts/demo

test:
	scripts/test

torture:
	scripts/torture

bench:
	scripts/bench

lint:
	scripts/lint

doc:
	scripts/doc

clean-cache:
	rm -rf "$${MHS_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/ip_vs_mhs}"

.PHONY: help modules modules_install clean stock um debug tool install demo test torture bench lint doc \
	clean-cache
