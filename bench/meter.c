// SPDX-License-Identifier: GPL-2.0
/*
 * Counts what calls of a function of the kernel cost, and what the work costs
 * that a module has done by workqueues; in units of the time stamp counter.
 *
 * In debugfs, mhs_bench/meter: write "FUNCTION MODULE" to begin, and "off" to end.
 * Read "calls N total T max M", and the same for "works". A call or work that is
 * not over yet does not count.
 */
#include <linux/debugfs.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <asm/timex.h>

#include "mhs_bench.h"

struct count {
	u64 number, total, max;
};

static struct {
	/* Protects what follows, but for the counts. */
	struct mutex lock;
	bool on;
	struct kretprobe probe;
	char function[64];
	/* As "%ps" prints it. */
	char module[64];
	/* One at a time: changes of IPVS are serialized, and so is a service's work. */
	spinlock_t counting;
	struct count calls, works;
	struct work_struct *work;
	u64 begin;
} meter = {
	.lock = __MUTEX_INITIALIZER(meter.lock),
	.counting = __SPIN_LOCK_UNLOCKED(meter.counting),
};

static void count(struct count *count, u64 begin)
{
	u64 cost = rdtsc_ordered() - begin;
	unsigned long flags;

	spin_lock_irqsave(&meter.counting, flags);
	count->number++;
	count->total += cost;
	count->max = max(count->max, cost);
	spin_unlock_irqrestore(&meter.counting, flags);
}

static int call_begins(struct kretprobe_instance *call, struct pt_regs *regs)
{
	*(u64 *)call->data = rdtsc_ordered();
	bench_mark_begin();
	return 0;
}

static int call_ends(struct kretprobe_instance *call, struct pt_regs *regs)
{
	bench_mark_end();
	count(&meter.calls, *(u64 *)call->data);
	return 0;
}

static void work_begins(void *unused, struct work_struct *work)
{
	char name[KSYM_SYMBOL_LEN];

	snprintf(name, sizeof(name), "%ps", work->func);
	if (!strstr(name, meter.module) || cmpxchg(&meter.work, NULL, work))
		return;
	meter.begin = rdtsc_ordered();
}

static void work_ends(void *unused, struct work_struct *work, work_func_t function)
{
	if (READ_ONCE(meter.work) != work)
		return;
	count(&meter.works, meter.begin);
	WRITE_ONCE(meter.work, NULL);
}

/* The kernel does not export these two, but shows all that it has. */
static struct tracepoint *execute_start, *execute_end;

static void find_tracepoint(struct tracepoint *tp, void *unused)
{
	if (!strcmp(tp->name, "workqueue_execute_start"))
		execute_start = tp;
	if (!strcmp(tp->name, "workqueue_execute_end"))
		execute_end = tp;
}

static void meter_off(void)
{
	if (!meter.on)
		return;
	meter.on = false;
	tracepoint_probe_unregister(execute_end, work_ends, NULL);
	tracepoint_probe_unregister(execute_start, work_begins, NULL);
	tracepoint_synchronize_unregister();
	unregister_kretprobe(&meter.probe);
	meter.work = NULL;
}

static int meter_on(void)
{
	int err;

	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!execute_start || !execute_end)
		return -ENOENT;
	memset(&meter.calls, 0, sizeof(meter.calls));
	memset(&meter.works, 0, sizeof(meter.works));
	meter.probe = (struct kretprobe) {
		.kp.symbol_name = meter.function,
		.entry_handler = call_begins,
		.handler = call_ends,
		.data_size = sizeof(u64),
	};
	err = register_kretprobe(&meter.probe);
	if (err)
		return err;
	err = tracepoint_probe_register(execute_start, work_begins, NULL);
	if (err)
		goto no_start;
	err = tracepoint_probe_register(execute_end, work_ends, NULL);
	if (err)
		goto no_end;
	meter.on = true;
	return 0;

no_end:
	tracepoint_probe_unregister(execute_start, work_begins, NULL);
	tracepoint_synchronize_unregister();
no_start:
	unregister_kretprobe(&meter.probe);
	return err;
}

static ssize_t meter_write(struct file *file, const char __user *from,
			   size_t len, loff_t *pos)
{
	char text[128] = {}, module[32];
	int err = 0;

	if (len >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, len))
		return -EFAULT;
	mutex_lock(&meter.lock);
	meter_off();
	if (strcmp(strim(text), "off")) {
		if (sscanf(text, "%63s %31s", meter.function, module) == 2) {
			snprintf(meter.module, sizeof(meter.module), "[%s]", module);
			err = meter_on();
		} else {
			err = -EINVAL;
		}
	} else {
		bench_mark_over();
	}
	mutex_unlock(&meter.lock);
	return err ? err : len;
}

static void show(struct seq_file *seq, const char *what, const struct count *count)
{
	seq_printf(seq, "%s %llu total %llu max %llu\n", what, count->number,
		   count->total, count->max);
}

static int meter_show(struct seq_file *seq, void *unused)
{
	mutex_lock(&meter.lock);
	show(seq, "calls", &meter.calls);
	show(seq, "works", &meter.works);
	mutex_unlock(&meter.lock);
	return 0;
}

static int meter_open(struct inode *inode, struct file *file)
{
	return single_open(file, meter_show, NULL);
}

static const struct file_operations meter_fops = {
	.owner = THIS_MODULE,
	.open = meter_open,
	.read = seq_read,
	.write = meter_write,
	.llseek = seq_lseek,
	.release = single_release,
};

void meter_init(struct dentry *dir)
{
	debugfs_create_file("meter", 0600, dir, NULL, &meter_fops);
}

void meter_exit(void)
{
	meter_off();
}
