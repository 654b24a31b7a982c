/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MHS_BENCH_H
#define MHS_BENCH_H

#include <linux/types.h>

struct dentry;

void meter_init(struct dentry *dir);
void meter_exit(void);

/* Whether a tracer is to take note. */
extern u32 bench_trace;

/*
 * Instructions that do nothing, for a tracer to know where a measured window
 * begins and ends, and when all windows of a run are over.
 */
static __always_inline void bench_mark_begin(void)
{
	if (bench_trace)
		asm volatile("nopl 0x6d687301(%%rax)" ::: "memory");
}

static __always_inline void bench_mark_end(void)
{
	if (bench_trace)
		asm volatile("nopl 0x6d687302(%%rax)" ::: "memory");
}

static __always_inline void bench_mark_over(void)
{
	if (bench_trace)
		asm volatile("nopl 0x6d687303(%%rax)" ::: "memory");
}

#endif
