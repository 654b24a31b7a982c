// SPDX-License-Identifier: GPL-2.0
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include "helpers.h"

struct mhs_net {
	u32 express;	/* enum mhs_express */
};

static unsigned int mhs_net_id __read_mostly;
static atomic_t mhs_net_users = ATOMIC_INIT(0);

static struct pernet_operations mhs_net_ops = {
	.id = &mhs_net_id,
	.size = sizeof(struct mhs_net),
};

int mhs_net_register(void)
{
	int error;

	if (atomic_cmpxchg(&mhs_net_users, 0, 1))
		return -EBUSY;
	error = register_pernet_subsys(&mhs_net_ops);
	if (error)
		atomic_set(&mhs_net_users, 0);
	return error;
}

void mhs_net_unregister(void)
{
	unregister_pernet_subsys(&mhs_net_ops);
	atomic_set(&mhs_net_users, 0);
}

u32 mhs_net_express(const struct net *net)
{
	const struct mhs_net *notes = net_generic(net, mhs_net_id);

	return READ_ONCE(notes->express);
}

void mhs_net_note_express(struct net *net, u32 express)
{
	struct mhs_net *notes = net_generic(net, mhs_net_id);

	WRITE_ONCE(notes->express, express);
}

u8 mhs_ipvs_settings(struct netns_ipvs *ipvs)
{
	return mhs_settings(ipvs);
}

bool mhs_ipvs_expire_nodest(struct netns_ipvs *ipvs)
{
	return sysctl_expire_nodest_conn(ipvs);
}

int mhs_ipvs_conn_count(struct netns_ipvs *ipvs)
{
	return atomic_read(&ipvs->conn_count);
}

bool mhs_ipvs_conn_full(struct netns_ipvs *ipvs)
{
	return atomic_read(&ipvs->conn_count) >= sysctl_conn_max(ipvs);
}

int mhs_ipvs_services(const struct netns_ipvs *ipvs, int af, bool by_mark)
{
	int index = ip_vs_af_index(af);

	return atomic_read(by_mark ? &ipvs->fwm_services[index] :
				     &ipvs->nonfwm_services[index]);
}

static bool mhs_is_ftp_data(const struct netns_ipvs *ipvs, u16 protocol,
			    __be16 port)
{
	return protocol == IPPROTO_TCP &&
	       (port == FTPDATA ||
		!inet_port_requires_bind_service(ipvs->net, ntohs(port)));
}

/*
 * Whether IPVS has a service that it prefers (see ip_vs_service_find()): one by
 * mark to one by address and, if @any_port, one for this very port or for FTP to
 * one for all ports. It may not be of this module, so its own table knows.
 */
bool mhs_ipvs_prefers(struct netns_ipvs *ipvs, int af, u32 mark, u16 protocol,
		      const union nf_inet_addr *addr, __be16 port,
		      bool any_port)
{
	DECLARE_IP_VS_RHT_WALK_BUCKETS_RCU();
	struct ip_vs_service *svc;
	struct hlist_bl_head *head;
	struct hlist_bl_node *e;

	ip_vs_rht_walk_buckets_rcu(ipvs->svc_table, head) {
		hlist_bl_for_each_entry_rcu(svc, e, head, s_list) {
			if (svc->af != af)
				continue;
			if (svc->fwmark) {
				if (svc->fwmark == mark)
					return true;
				continue;
			}
			if (any_port && svc->protocol == protocol &&
			    ip_vs_addr_equal(af, &svc->addr, addr) &&
			    (svc->port == port ||
			     (svc->port == FTPPORT &&
			      mhs_is_ftp_data(ipvs, protocol, port))))
				return true;
		}
	}
	return false;
}

/*
 * A candidate is what ip_vs_in_hook() would look at. Not what this host sends to
 * itself: IPVS has seen that at LOCAL_OUT, and made an entry, by which it knows
 * requests from the answers of a server that is here.
 */
u64 mhs_skb_look(const struct sk_buff *skb, const struct net *net)
{
	struct netns_ipvs *ipvs = READ_ONCE(net->ipvs);

	if (!ipvs || skb->ipvs_property || skb->pkt_type != PACKET_HOST ||
	    !skb_dst(skb) || skb->dev->flags & IFF_LOOPBACK)
		return 0;
	return mhs_look(skb, ipvs);
}

/* As ip_vs_in_icmp() does for tunnels; @skb is as before afterwards. */
void mhs_skb_learn_mtu(struct sk_buff *skb, struct netns_ipvs *ipvs,
		       unsigned int offset, u32 mtu)
{
	unsigned int icmp = ip_hdrlen(skb);

	if (nf_ip_checksum(skb, NF_INET_LOCAL_IN, icmp, IPPROTO_ICMP) ||
	    !pskb_may_pull(skb, offset + sizeof(struct iphdr)))
		return;
	__skb_pull(skb, offset);
	ipv4_update_pmtu(skb, ipvs->net, mtu, 0, 0);
	__skb_push(skb, offset);
}

void mhs_dest_hold(struct ip_vs_dest *dest)
{
	ip_vs_dest_hold(dest);
}

void mhs_dest_put(struct ip_vs_dest *dest)
{
	ip_vs_dest_put(dest);
}

int mhs_dest_weight(const struct ip_vs_dest *dest)
{
	return atomic_read(&dest->weight);
}

int mhs_dest_conn_flags(const struct ip_vs_dest *dest)
{
	return atomic_read(&dest->conn_flags);
}

/* As is_new_conn_expected() has it, if IPVS asks that at all. */
bool mhs_conn_is_over(const struct ip_vs_conn *cp)
{
	int mode = READ_ONCE(cp->ipvs->sysctl_conn_reuse_mode);

	if (!mode || cp->control)
		return false;
	switch (cp->protocol) {
	case IPPROTO_TCP:
		switch (READ_ONCE(cp->state)) {
		case IP_VS_TCP_S_TIME_WAIT:
		case IP_VS_TCP_S_CLOSE:
			return true;
		case IP_VS_TCP_S_FIN_WAIT:
			return mode & 2 && cp->flags & IP_VS_CONN_F_NOOUTPUT;
		}
		return false;
	case IPPROTO_SCTP:
		return READ_ONCE(cp->state) == IP_VS_SCTP_S_CLOSED;
	default:
		return false;
	}
}

/*
 * For the entry of a flow that was there before. If the first packet that it
 * sees is a FIN, IPVS would think that all is over, and keep it for ten seconds.
 */
void mhs_conn_establish(struct ip_vs_conn *cp)
{
	spin_lock_bh(&cp->lock);
	if (cp->state == IP_VS_TCP_S_NONE)
		cp->state = IP_VS_TCP_S_ESTABLISHED;
	spin_unlock_bh(&cp->lock);
}

/* Gives back a reference to a fresh entry that nobody is to use. */
void mhs_conn_drop(struct ip_vs_conn *cp)
{
	cp->timeout = 0;
	ip_vs_conn_put(cp);
}

/* Gives a reference back without restarting the entry's timer. */
void mhs_conn_put_untouched(struct ip_vs_conn *cp)
{
	__ip_vs_conn_put(cp);
}

/*
 * Only a pending timer is brought forward: the entry may be on its way out
 * already (compare ip_vs_conn_expire_now(), which is not exported).
 */
void mhs_conn_expire_now(struct ip_vs_conn *cp)
{
	if (!atomic_read(&cp->n_control))
		mod_timer_pending(&cp->timer, jiffies);
}

void mhs_conn_count_packet(struct ip_vs_conn *cp)
{
	atomic_inc(&cp->in_pkts);
}

static void mhs_stats_add(struct ip_vs_stats *stats, unsigned int bytes,
			  bool is_new)
{
	struct ip_vs_cpu_stats *s = this_cpu_ptr(stats->cpustats);

	u64_stats_update_begin(&s->syncp);
	if (is_new)
		u64_stats_inc(&s->cnt.conns);
	u64_stats_inc(&s->cnt.inpkts);
	u64_stats_add(&s->cnt.inbytes, bytes);
	u64_stats_update_end(&s->syncp);
}

/*
 * The counters of ip_vs_in_stats() and ip_vs_conn_stats() in one go. Packets come
 * to the doors in softirqs, which need not be kept out then, but for those that a
 * program had been asked about (NFQUEUE).
 */
void mhs_stats_packet(struct ip_vs_dest *dest, struct ip_vs_service *svc,
		      unsigned int bytes, bool is_new)
{
	if (unlikely(!in_softirq())) {
		local_bh_disable();
		mhs_stats_packet(dest, svc, bytes, is_new);
		local_bh_enable();
		return;
	}
	mhs_stats_add(&dest->stats, bytes, is_new);
	mhs_stats_add(&svc->stats, bytes, is_new);
	mhs_stats_add(&svc->ipvs->tot_stats->s, bytes, is_new);
}

struct mhs_counters __percpu *mhs_counters_alloc(unsigned int n)
{
	struct mhs_counters __percpu *counters;
	struct mhs_counters *c;
	int cpu;

	counters = __alloc_percpu(struct_size(c, count, n), __alignof__(*c));
	if (!counters)
		return NULL;
	for_each_possible_cpu(cpu) {
		c = per_cpu_ptr(counters, cpu);
		u64_stats_init(&c->syncp);
	}
	return counters;
}

void mhs_counters_free(struct mhs_counters __percpu *counters)
{
	free_percpu(counters);
}

/* For what is rare. Interrupted by a packet on 32 bits, it would confuse readers. */
void mhs_counters_add(struct mhs_counters __percpu *counters, unsigned int i,
		      u64 by)
{
	struct mhs_counters *c;

	local_bh_disable();
	c = this_cpu_ptr(counters);
	u64_stats_update_begin(&c->syncp);
	u64_stats_add(&c->count[i], by);
	u64_stats_update_end(&c->syncp);
	local_bh_enable();
}

void mhs_counters_read(const struct mhs_counters __percpu *counters,
		       unsigned int cpu, u64 *counts, unsigned int n)
{
	const struct mhs_counters *c = per_cpu_ptr(counters, cpu);
	unsigned int start, i;

	do {
		start = u64_stats_fetch_begin(&c->syncp);
		for (i = 0; i < n; i++)
			counts[i] = u64_stats_read(&c->count[i]);
	} while (u64_stats_fetch_retry(&c->syncp, start));
}

/* The first CPU there may be from @cpu on, or one that is too large. */
unsigned int mhs_next_cpu(unsigned int cpu)
{
	if (cpu >= nr_cpu_ids)
		return UINT_MAX;
	cpu = cpumask_next((int)cpu - 1, cpu_possible_mask);
	return cpu < nr_cpu_ids ? cpu : UINT_MAX;
}

static void mhs_counters_packet(struct mhs_counters __percpu *counters,
				unsigned int bytes)
{
	struct mhs_counters *c = this_cpu_ptr(counters);

	u64_stats_update_begin(&c->syncp);
	u64_stats_inc(&c->count[MHS_COUNTER_PACKETS]);
	u64_stats_add(&c->count[MHS_COUNTER_BYTES], bytes);
	u64_stats_update_end(&c->syncp);
}

/* mhs_stats_packet() of a packet without an entry: our own counters, too. */
void mhs_stats_stateless(struct ip_vs_dest *dest, struct ip_vs_service *svc,
			 unsigned int bytes, bool is_new,
			 struct mhs_counters __percpu *svc_counters,
			 struct mhs_counters __percpu *dest_counters)
{
	if (unlikely(!in_softirq())) {
		local_bh_disable();
		mhs_stats_stateless(dest, svc, bytes, is_new, svc_counters,
				    dest_counters);
		local_bh_enable();
		return;
	}
	mhs_stats_add(&dest->stats, bytes, is_new);
	mhs_stats_add(&svc->stats, bytes, is_new);
	mhs_stats_add(&svc->ipvs->tot_stats->s, bytes, is_new);
	mhs_counters_packet(svc_counters, bytes);
	mhs_counters_packet(dest_counters, bytes);
}

/* New flows that IPVS has counted on @cpu for @svc. */
u64 mhs_svc_conns(const struct ip_vs_service *svc, unsigned int cpu)
{
	struct ip_vs_cpu_stats *s = per_cpu_ptr(svc->stats.cpustats, cpu);
	unsigned int start;
	u64 conns;

	do {
		start = u64_stats_fetch_begin(&s->syncp);
		conns = u64_stats_read(&s->cnt.conns);
	} while (u64_stats_fetch_retry(&s->syncp, start));
	return conns;
}

struct sk_buff *mhs_genlmsg_new(bool may_sleep)
{
	return genlmsg_new(GENLMSG_DEFAULT_SIZE,
			   may_sleep ? GFP_KERNEL : GFP_ATOMIC);
}

void mhs_genlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

void mhs_genlmsg_end(struct sk_buff *skb, void *header)
{
	genlmsg_end(skb, header);
}

void mhs_genlmsg_cancel(struct sk_buff *skb, void *header)
{
	genlmsg_cancel(skb, header);
}

int mhs_genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

/* To the one group there is. Does not sleep. */
int mhs_genlmsg_multicast(const struct genl_family *family, struct net *net,
			  struct sk_buff *skb)
{
	return genlmsg_multicast_netns(family, net, skb, 0, 0, GFP_ATOMIC);
}

/* Those who listen find out as if there had been no room on their side. */
void mhs_genl_lost(const struct genl_family *family, struct net *net)
{
	genl_set_err(family, net, 0, 0, -ENOBUFS);
}

bool mhs_genl_has_listeners(const struct genl_family *family, struct net *net)
{
	return genl_has_listeners(family, net, 0);
}

struct nlattr *mhs_nla_nest_start(struct sk_buff *skb, int type)
{
	return nla_nest_start(skb, type);
}

void mhs_nla_nest_end(struct sk_buff *skb, struct nlattr *nest)
{
	nla_nest_end(skb, nest);
}

const struct nlattr *mhs_nla_find_nested(const struct nlattr *nest, int type)
{
	return nla_find_nested(nest, type);
}

/* The parsed attributes are not used: nothing says how many there are. */
const struct nlattr *mhs_genl_attr(const struct genl_info *info, int type)
{
	return nlmsg_find_attr(info->nlhdr, GENL_HDRLEN, type);
}

/* In no container of its own, that is. */
bool mhs_genl_is_root(const struct sk_buff *request)
{
	return netlink_capable(request, CAP_NET_ADMIN);
}

struct netns_ipvs *mhs_genl_ipvs(const struct genl_info *info)
{
	return net_ipvs(genl_info_net(info));
}

/* @message must last. */
void mhs_genl_fail(const struct genl_info *info, const struct nlattr *attr,
		   const char *message)
{
	struct netlink_ext_ack *extack = info->extack;

	do_trace_netlink_extack(message);
	if (!extack)
		return;
	extack->_msg = message;
	if (attr)
		NL_SET_BAD_ATTR(extack, attr);
}

void mhs_genl_missing(const struct genl_info *info, const struct nlattr *nest,
		      int type)
{
	NL_SET_ERR_ATTR_MISS(info->extack, nest, type);
}

void **mhs_genl_state(struct netlink_callback *cb)
{
	return (void **)cb->ctx;
}

void mhs_genl_check_consistent(struct netlink_callback *cb, void *header)
{
	nl_dump_check_consistent(cb, genlmsg_nlhdr(header));
}

void mhs_local_bh_disable(void)
{
	local_bh_disable();
}

void mhs_local_bh_enable(void)
{
	local_bh_enable();
}

void mhs_delayed_work_init(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
	/*
	 * Each kind of work has a function of its own, and is a class of its own
	 * for lockdep: what registers the netlink family takes locks that are
	 * held where that of a service is waited for.
	 */
	lockdep_init_map(&work->work.lockdep_map, "mhs_work",
			 (struct lock_class_key *)func, 0);
}

/* Sets the time, whatever it was. */
void mhs_delayed_work_arm(struct delayed_work *work, unsigned long delay)
{
	mod_delayed_work(system_dfl_wq, work, delay);
}

/* Sets the time unless the work waits already. */
void mhs_delayed_work_arm_if_idle(struct delayed_work *work,
				  unsigned long delay)
{
	queue_delayed_work(system_dfl_wq, work, delay);
}
