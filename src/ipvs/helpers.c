// SPDX-License-Identifier: GPL-2.0
#include "helpers.h"

u32 mhs_ipvs_settings(struct netns_ipvs *ipvs)
{
	int sync = READ_ONCE(ipvs->sync_state);
	u32 settings = 0;

	if (sysctl_backup_only(ipvs))
		settings |= MHS_IPVS_BACKUP_ONLY;
	if (ip_vs_conntrack_enabled(ipvs))
		settings |= MHS_IPVS_CONNTRACK;
	if (sync & IP_VS_STATE_BACKUP)
		settings |= MHS_IPVS_SYNC_BACKUP;
	if (sync & IP_VS_STATE_MASTER)
		settings |= MHS_IPVS_SYNC_MASTER;
	if (READ_ONCE(ipvs->drop_rate))
		settings |= MHS_IPVS_DROPS;
	if (sysctl_expire_nodest_conn(ipvs))
		settings |= MHS_IPVS_EXPIRE_NODEST;
	return settings;
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

/* In one go, since each call costs as much as what it is for. */
struct mhs_skb_look mhs_skb_look(const struct sk_buff *skb)
{
	return (struct mhs_skb_look) {
		.mark = skb->mark,
		.network = skb_network_offset(skb),
		.candidate = !skb->ipvs_property &&
			     skb->pkt_type == PACKET_HOST && skb_dst(skb),
	};
}

/* As ip_vs_in_icmp() does for tunnels; @skb is as before afterwards. */
void mhs_skb_learn_mtu(struct sk_buff *skb, struct netns_ipvs *ipvs,
		       unsigned int offset, u32 mtu)
{
	unsigned int icmp = skb_network_offset(skb) + ip_hdrlen(skb);

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
 * to the doors in softirqs only, unlike to IPVS, so those need not be kept out.
 */
void mhs_stats_packet(struct ip_vs_dest *dest, struct ip_vs_service *svc,
		      unsigned int bytes, bool is_new)
{
	mhs_stats_add(&dest->stats, bytes, is_new);
	mhs_stats_add(&svc->stats, bytes, is_new);
	mhs_stats_add(&svc->ipvs->tot_stats->s, bytes, is_new);
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
}

/* Sets the time, whatever it was. */
void mhs_delayed_work_arm(struct delayed_work *work, unsigned long delay)
{
	mod_delayed_work(system_dfl_wq, work, delay);
}

/* Sets the time unless the work waits already. */
void mhs_delayed_work_arm_earlier(struct delayed_work *work,
				  unsigned long delay)
{
	queue_delayed_work(system_dfl_wq, work, delay);
}
