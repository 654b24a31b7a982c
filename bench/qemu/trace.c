// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU's emulator: which instructions of the kernel were executed,
 * and what they wrote, in the windows that mhs_bench.c marks.
 *
 * Arguments: out=FILE, and writes=on to have writes too. FILE has, for each run:
 *   run WINDOWS
 *   block COUNT ORDER INSTRUCTION...  a translated block: executed COUNT times, as
 *                                     the ORDERth new one; where its instructions are
 *   write INSTRUCTION ADDRESS SIZE COUNT  who wrote how often to where
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

struct write {
	uint64_t insn, addr, count;
	unsigned int size;
};

#define WRITES (1 << 20)

static struct block *blocks;
static struct write *writes;
static bool open_window;
static uint64_t order, windows;
static FILE *out;

/* nopl 0x6d6873XX(%rax), where XX says which mark it is. */
static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 0, 0x73, 0x68, 0x6d };

static void window_begins(unsigned int cpu, void *data)
{
	open_window = true;
	windows++;
}

static void window_ends(unsigned int cpu, void *data)
{
	open_window = false;
}

static void executed(unsigned int cpu, void *data)
{
	struct block *block = data;

	if (!open_window)
		return;
	if (!block->count++)
		block->order = ++order;
}

static void wrote(unsigned int cpu, uint32_t info, uint64_t addr, void *data)
{
	uint64_t insn = (uintptr_t)data;
	struct write *write;
	size_t i;

	if (!open_window)
		return;
	i = (insn * 31 + addr) * 0x9e3779b97f4a7c15ULL >> 44;
	for (;; i++) {
		write = &writes[i % WRITES];
		if (!write->count) {
			write->insn = insn;
			write->addr = addr;
			write->size = 1 << qemu_plugin_mem_size_shift(info);
		}
		if (write->insn == insn && write->addr == addr)
			break;
	}
	write->count++;
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
	for (i = 0; writes && i < WRITES; i++) {
		if (writes[i].count)
			fprintf(out, "write %" PRIx64 " %" PRIx64 " %u %" PRIu64 "\n",
				writes[i].insn, writes[i].addr, writes[i].size,
				writes[i].count);
	}
	if (writes)
		memset(writes, 0, WRITES * sizeof(*writes));
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
	block->next = blocks;
	blocks = block;
	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t at = qemu_plugin_insn_vaddr(insn);

		block->at[i] = at;
		mark_of(insn);
		if (writes)
			qemu_plugin_register_vcpu_mem_cb(insn, wrote, NO_REGS, MEM_W,
							 (void *)(uintptr_t)at);
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGS, block);
}

EXPORT int qemu_plugin_install(plugin_id_t id, const struct qemu_info_t *info,
			       int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4)) {
			out = fopen(argv[i] + 4, "w");
		} else if (!strcmp(argv[i], "writes=on")) {
			writes = calloc(WRITES, sizeof(*writes));
		} else if (strcmp(argv[i], "writes=off")) {
			fprintf(stderr, "trace: %s: unknown argument; allowed: out=, writes=\n",
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
