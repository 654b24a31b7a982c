// SPDX-License-Identifier: GPL-2.0
/*
 * Feeds packets to the receive path and counts what they cost.
 *
 * A batch of packets is made beforehand from one frame, each for another flow.
 * Then the clock is read, all of them are received, and the clock is read again.
 * The clock is the time stamp counter: under QEMU's -icount shift=0 it counts
 * instructions.
 *
 * In debugfs, in mhs_bench/:
 *   packet    the frame, from its Ethernet header on
 *   device    the network device that it seems to come from
 *   vary      where in the frame is the 32-bit word that the number of the flow
 *             is added to
 *   checksum  where in the frame is the checksum of the IPv4 header that has that
 *             word; 0 if none has
 *   first     the number of the first flow
 *   flows     how many there are, before the first has its turn again
 *   batch     packets in a batch
 *   cpus      how many CPUs receive at the same time, each its own flows: the
 *             first CPU the first so many, the next those after them
 *   after_tick whether a batch begins when a tick of the clock is just over, so that
 *             none comes meanwhile
 *   trace     whether a tracer is to take note of what follows
 *   drop      whether packets are dropped in LOCAL_IN, where the first door of
 *             ip_vs_mhs would stand
 *   run       write a number of batches to have them received; read the counts,
 *             those of the first CPU first
 */
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/netfilter_ipv4.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/timex.h>
#include <linux/unaligned.h>
#include <net/checksum.h>

#include "mhs_bench.h"

#define MAX_BATCH	1024
#define MAX_CPUS	8
#define MAX_BATCHES	65536
#define MAX_FRAME	256

/* What one CPU does. */
struct lane {
	struct task_struct *task;
	struct net_device *dev;
	/* The flow of the next packet, counted from the first of this lane. */
	u32 first, next;
	u32 batches;
	u64 *counts;
	int err;
	struct sk_buff *skbs[MAX_BATCH];
};

static struct {
	/* Protects everything here. */
	struct mutex lock;
	u8 packet[MAX_FRAME];
	u32 len;
	char device[IFNAMSIZ];
	u32 vary, checksum, first, flows, batch, cpus;
	struct lane *lanes[MAX_CPUS];
	u64 *counts;
	u32 number;
	bool drop, after_tick;
	/* Lanes that have begun. */
	atomic_t begun;
} bench = {
	.lock = __MUTEX_INITIALIZER(bench.lock),
	.flows = 1,
	.batch = 64,
	.cpus = 1,
};

static struct dentry *bench_dir;

u32 bench_trace;

static struct sk_buff *bench_packet(struct net_device *dev, u32 flow)
{
	struct sk_buff *skb = netdev_alloc_skb_ip_align(dev, bench.len);
	u8 *data;

	if (!skb)
		return NULL;
	data = skb_put_data(skb, bench.packet, bench.len);
	if (bench.vary) {
		__be32 *word = (__be32 *)(data + bench.vary);
		__be32 before = get_unaligned(word);
		__be32 after = cpu_to_be32(be32_to_cpu(before) + flow);

		put_unaligned(after, word);
		if (bench.checksum)
			csum_replace4((__sum16 *)(data + bench.checksum),
				      before, after);
	}
	skb->protocol = eth_type_trans(skb, dev);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	return skb;
}

/* One that sleeps is woken by a tick. Another CPU's comes at the same time or just after. */
static void wait_for_tick(void)
{
	schedule_timeout_uninterruptible(1);
	usleep_range(20, 40);
}

static u64 bench_window(struct lane *lane, u32 n)
{
	u64 begin, end;
	u32 i;

	if (bench.after_tick)
		wait_for_tick();
	local_bh_disable();
	begin = rdtsc_ordered();
	bench_mark_begin();
	for (i = 0; i < n; i++)
		netif_receive_skb(lane->skbs[i]);
	bench_mark_end();
	end = rdtsc_ordered();
	local_bh_enable();
	return end - begin;
}

static int bench_batch(struct lane *lane, u64 *count)
{
	u32 i, n = bench.batch;

	for (i = 0; i < n; i++) {
		lane->skbs[i] = bench_packet(lane->dev, lane->first + lane->next);
		if (!lane->skbs[i])
			goto no_memory;
		lane->next = (lane->next + 1) % bench.flows;
	}
	*count = bench_window(lane, n);
	return 0;

no_memory:
	while (i--)
		kfree_skb(lane->skbs[i]);
	return -ENOMEM;
}

static int bench_lane(void *data)
{
	struct lane *lane = data;
	u32 i;

	/* All begin together. */
	atomic_inc(&bench.begun);
	while (atomic_read(&bench.begun) < bench.cpus)
		cond_resched();
	for (i = 0; i < lane->batches && !lane->err; i++) {
		lane->err = bench_batch(lane, &lane->counts[i]);
		cond_resched();
	}
	return 0;
}

/* In threads that are bound to a CPU each, unless there is one CPU only. */
static int bench_lanes(void)
{
	int err = 0;
	u32 i;

	atomic_set(&bench.begun, 0);
	if (bench.cpus == 1) {
		bench_lane(bench.lanes[0]);
		return bench.lanes[0]->err;
	}
	for (i = 0; i < bench.cpus; i++) {
		struct lane *lane = bench.lanes[i];

		lane->task = kthread_create_on_cpu(bench_lane, lane, i, "mhs_bench/%u");
		if (IS_ERR(lane->task)) {
			err = PTR_ERR(lane->task);
			goto no_thread;
		}
		get_task_struct(lane->task);
	}
	for (i = 0; i < bench.cpus; i++)
		wake_up_process(bench.lanes[i]->task);
no_thread:
	/* One that was never woken is told to end before it has begun. */
	while (i--) {
		struct lane *lane = bench.lanes[i];

		if (!err)
			while (atomic_read(&bench.begun) < bench.cpus)
				cond_resched();
		kthread_stop_put(lane->task);
		err = err ? : lane->err;
	}
	return err;
}

static void bench_free(void)
{
	u32 i;

	for (i = 0; i < MAX_CPUS; i++) {
		kvfree(bench.lanes[i]);
		bench.lanes[i] = NULL;
	}
}

static int bench_run(u32 batches)
{
	struct net_device *dev;
	int err = 0;
	u32 i;

	if (!batches || batches > MAX_BATCHES || !bench.flows ||
	    !bench.batch || bench.batch > MAX_BATCH ||
	    !bench.cpus || bench.cpus > min(MAX_CPUS, num_online_cpus()) ||
	    bench.len < ETH_HLEN + sizeof(struct iphdr) ||
	    bench.vary > bench.len - sizeof(u32) ||
	    bench.checksum > bench.len - sizeof(u16))
		return -EINVAL;
	kvfree(bench.counts);
	bench.number = 0;
	bench.counts = kvcalloc(batches, bench.cpus * sizeof(*bench.counts), GFP_KERNEL);
	if (!bench.counts)
		return -ENOMEM;
	dev = dev_get_by_name(&init_net, bench.device);
	if (!dev)
		return -ENODEV;
	for (i = 0; i < bench.cpus && !err; i++) {
		struct lane *lane = kvzalloc(sizeof(*lane), GFP_KERNEL);

		if (!lane) {
			err = -ENOMEM;
			break;
		}
		lane->dev = dev;
		lane->first = bench.first + i * bench.flows;
		lane->batches = batches;
		lane->counts = bench.counts + i * batches;
		bench.lanes[i] = lane;
	}
	if (!err)
		err = bench_lanes();
	if (!err)
		bench.number = batches * bench.cpus;
	bench_free();
	dev_put(dev);
	bench_mark_over();
	return err;
}

static ssize_t run_write(struct file *file, const char __user *from,
			 size_t len, loff_t *pos)
{
	u32 batches;
	int err = kstrtou32_from_user(from, len, 0, &batches);

	if (err)
		return err;
	mutex_lock(&bench.lock);
	err = bench_run(batches);
	mutex_unlock(&bench.lock);
	return err ? err : len;
}

static int run_show(struct seq_file *seq, void *unused)
{
	u32 i;

	mutex_lock(&bench.lock);
	for (i = 0; i < bench.number; i++)
		seq_printf(seq, "%llu\n", bench.counts[i]);
	mutex_unlock(&bench.lock);
	return 0;
}

static int run_open(struct inode *inode, struct file *file)
{
	return single_open(file, run_show, NULL);
}

static const struct file_operations run_fops = {
	.owner = THIS_MODULE,
	.open = run_open,
	.read = seq_read,
	.write = run_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static ssize_t packet_write(struct file *file, const char __user *from,
			    size_t len, loff_t *pos)
{
	ssize_t err = 0;

	if (len > MAX_FRAME)
		return -EMSGSIZE;
	mutex_lock(&bench.lock);
	if (copy_from_user(bench.packet, from, len))
		err = -EFAULT;
	else
		bench.len = len;
	mutex_unlock(&bench.lock);
	return err ? err : len;
}

static const struct file_operations packet_fops = {
	.owner = THIS_MODULE,
	.write = packet_write,
};

static ssize_t device_write(struct file *file, const char __user *from,
			    size_t len, loff_t *pos)
{
	char name[IFNAMSIZ] = {};

	if (len >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, from, len))
		return -EFAULT;
	mutex_lock(&bench.lock);
	strscpy(bench.device, strim(name));
	mutex_unlock(&bench.lock);
	return len;
}

static const struct file_operations device_fops = {
	.owner = THIS_MODULE,
	.write = device_write,
};

static unsigned int bench_drop(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	return NF_DROP;
}

static const struct nf_hook_ops drop_ops = {
	.hook = bench_drop,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_LOCAL_IN,
	.priority = NF_IP_PRI_NAT_SRC - 3,
};

static ssize_t drop_write(struct file *file, const char __user *from,
			  size_t len, loff_t *pos)
{
	bool drop;
	int err = kstrtobool_from_user(from, len, &drop);

	if (err)
		return err;
	mutex_lock(&bench.lock);
	if (drop && !bench.drop)
		err = nf_register_net_hook(&init_net, &drop_ops);
	else if (!drop && bench.drop)
		nf_unregister_net_hook(&init_net, &drop_ops);
	if (!err)
		bench.drop = drop;
	mutex_unlock(&bench.lock);
	return err ? err : len;
}

static const struct file_operations drop_fops = {
	.owner = THIS_MODULE,
	.write = drop_write,
};

static int __init mhs_bench_init(void)
{
	bench_dir = debugfs_create_dir("mhs_bench", NULL);
	if (IS_ERR(bench_dir))
		return PTR_ERR(bench_dir);
	debugfs_create_file("packet", 0200, bench_dir, NULL, &packet_fops);
	debugfs_create_file("device", 0200, bench_dir, NULL, &device_fops);
	debugfs_create_u32("vary", 0600, bench_dir, &bench.vary);
	debugfs_create_u32("checksum", 0600, bench_dir, &bench.checksum);
	debugfs_create_u32("first", 0600, bench_dir, &bench.first);
	debugfs_create_u32("flows", 0600, bench_dir, &bench.flows);
	debugfs_create_u32("batch", 0600, bench_dir, &bench.batch);
	debugfs_create_u32("cpus", 0600, bench_dir, &bench.cpus);
	debugfs_create_bool("after_tick", 0600, bench_dir, &bench.after_tick);
	debugfs_create_u32("trace", 0600, bench_dir, &bench_trace);
	debugfs_create_file("drop", 0200, bench_dir, NULL, &drop_fops);
	debugfs_create_file("run", 0600, bench_dir, NULL, &run_fops);
	meter_init(bench_dir);
	return 0;
}

static void __exit mhs_bench_exit(void)
{
	debugfs_remove_recursive(bench_dir);
	meter_exit();
	if (bench.drop)
		nf_unregister_net_hook(&init_net, &drop_ops);
	kvfree(bench.counts);
}

module_init(mhs_bench_init);
module_exit(mhs_bench_exit);

MODULE_DESCRIPTION("Feeds packets to the receive path and counts what they cost");
MODULE_LICENSE("GPL");
