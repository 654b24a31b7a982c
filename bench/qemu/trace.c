// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU's emulator: which instructions of the kernel were executed,
 * and which cache lines they touched, in the windows that bench/injector.c marks.
 * With more than one CPU, there must be a window of one of them at a time.
 *
 * Arguments: out=FILE, and lines=on to have cache lines too. FILE has, for each run:
 *   run WINDOWS
 *   block COUNT ORDER INSTRUCTION...  a translated block: executed COUNT times, as
 *                                     the ORDERth new one; where its instructions are
 *   read INSTRUCTION LINE COUNT  how often an instruction read a line of 64 bytes
 *   write INSTRUCTION LINE COUNT  the same for writing
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu-plugin.h"

#define KERNEL 0xffff800000000000ULL

EXPORT int qemu_plugin_version = 1;

/* A block has the addresses of its instructions after it. */
struct block {
	struct block *next;
	uint64_t count, order;
	size_t insns;
	uint64_t at[];
};

struct access {
	uint64_t insn, line, count;
	bool write;
};

#define ACCESSES (1 << 20)
/* So many at most, that looking for one ends. */
#define ACCESSES_USED (ACCESSES / 4 * 3)

static struct block *blocks;
static struct access *accesses;
static size_t used;
/* The CPU whose window is open, plus 1. */
static unsigned int window_of;
static uint64_t order, windows;
static FILE *out;

/* nopl 0x6d6873XX(%rax), where XX says which mark it is. */
static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 0, 0x73, 0x68, 0x6d };

static void window_begins(unsigned int cpu, void *data)
{
	window_of = cpu + 1;
	windows++;
}

static void window_ends(unsigned int cpu, void *data)
{
	window_of = 0;
}

static void executed(unsigned int cpu, void *data)
{
	struct block *block = data;

	if (window_of != cpu + 1)
		return;
	if (!block->count++)
		block->order = ++order;
}

static void accessed(unsigned int cpu, uint32_t info, uint64_t addr, void *data)
{
	uint64_t insn = (uintptr_t)data, line = addr / 64;
	bool write = qemu_plugin_mem_is_store(info);
	struct access *access;
	size_t i;

	if (window_of != cpu + 1)
		return;
	i = (insn * 31 + line * 2 + write) * 0x9e3779b97f4a7c15ULL >> 44;
	for (;; i++) {
		access = &accesses[i % ACCESSES];
		if (!access->count) {
			if (++used > ACCESSES_USED) {
				fprintf(stderr, "trace: too many lines\n");
				exit(1);
			}
			access->insn = insn;
			access->line = line;
			access->write = write;
		}
		if (access->insn == insn && access->line == line && access->write == write)
			break;
	}
	access->count++;
}

static void run_ends(unsigned int cpu, void *data)
{
	struct block *block;
	size_t i;

	fprintf(out, "run %" PRIu64 "\n", windows);
	for (block = blocks; block; block = block->next) {
		if (!block->count)
			continue;
		fprintf(out, "block %" PRIu64 " %" PRIu64, block->count, block->order);
		for (i = 0; i < block->insns; i++)
			fprintf(out, " %" PRIx64, block->at[i]);
		fputc('\n', out);
		block->count = 0;
	}
	for (i = 0; accesses && i < ACCESSES; i++) {
		if (accesses[i].count)
			fprintf(out, "%s %" PRIx64 " %" PRIx64 " %" PRIu64 "\n",
				accesses[i].write ? "write" : "read", accesses[i].insn,
				accesses[i].line, accesses[i].count);
	}
	if (accesses)
		memset(accesses, 0, ACCESSES * sizeof(*accesses));
	used = 0;
	windows = 0;
	order = 0;
	fflush(out);
}

static void mark_of(struct qemu_plugin_insn *insn)
{
	static const exec_cb_t calls[] = { NULL, window_begins, window_ends, run_ends };
	const uint8_t *bytes = qemu_plugin_insn_data(insn);
	uint8_t which;

	if (qemu_plugin_insn_size(insn) != sizeof(mark))
		return;
	which = bytes[3];
	if (!memcmp(bytes, mark, 3) && !memcmp(bytes + 4, mark + 4, 3) && which >= 1 && which <= 3)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, calls[which], NO_REGS, NULL);
}

static void translated(plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	struct block *block;

	if (qemu_plugin_tb_vaddr(tb) < KERNEL)
		return;
	block = calloc(1, sizeof(*block) + n * sizeof(block->at[0]));
	if (!block)
		abort();
	block->insns = n;
	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t at = qemu_plugin_insn_vaddr(insn);

		block->at[i] = at;
		mark_of(insn);
		if (accesses)
			qemu_plugin_register_vcpu_mem_cb(insn, accessed, NO_REGS, MEM_RW,
							 (void *)(uintptr_t)at);
	}
	do {
		block->next = blocks;
	} while (!__sync_bool_compare_and_swap(&blocks, block->next, block));
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGS, block);
}

EXPORT int qemu_plugin_install(plugin_id_t id, const struct qemu_info_t *info,
			       int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4)) {
			out = fopen(argv[i] + 4, "w");
		} else if (!strcmp(argv[i], "lines=on")) {
			accesses = calloc(ACCESSES, sizeof(*accesses));
		} else if (strcmp(argv[i], "lines=off")) {
			fprintf(stderr, "trace: %s: unknown argument; allowed: out=, lines=\n",
				argv[i]);
			return -1;
		}
	}
	if (!out) {
		perror("trace");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
