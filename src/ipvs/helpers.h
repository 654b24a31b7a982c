/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot call by itself: static inlines, macros and bit fields of
 * IPVS, netfilter and the workqueues, as little as can be; what differs by
 * kernel version or configuration is settled here and nowhere else.
 */
#ifndef _IP_VS_MHS_HELPERS_H
#define _IP_VS_MHS_HELPERS_H

#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/skbuff.h>
#include <linux/u64_stats_sync.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/ip.h>
#include <net/ip_vs.h>

/* The settings of a netns that decide whether a packet may be stateless. */
#define MHS_IPVS_BACKUP_ONLY	0x1	/* net.ipv4.vs.backup_only */
#define MHS_IPVS_CONNTRACK	0x2	/* net.ipv4.vs.conntrack */
#define MHS_IPVS_SYNC_BACKUP	0x4	/* a sync daemon receives entries */
#define MHS_IPVS_SYNC_MASTER	0x8	/* a sync daemon sends entries */
#define MHS_IPVS_DROPS		0x10	/* net.ipv4.vs.drop_packet at work */

/* Just before IPVS in LOCAL_IN, and before everything else in PRE_ROUTING. */
enum mhs_door {
	MHS_DOOR = NF_IP_PRI_NAT_SRC - 3,
	MHS_DOOR_EXPRESS = NF_IP_PRI_FIRST,
};

/* What was said of express mode in a netns; nothing at first. */
enum mhs_express {
	MHS_EXPRESS_UNSAID,
	MHS_EXPRESS_ON,
	MHS_EXPRESS_OFF,
};

int mhs_net_register(void);
void mhs_net_unregister(void);
u32 mhs_net_express(const struct net *net);
void mhs_net_note_express(struct net *net, u32 express);

/* Load options, see params.c. */
extern unsigned int mhs_table_size;
extern char mhs_hash_key[64];
extern unsigned int mhs_balance;
extern char mhs_sched_name[64];
extern bool mhs_express;

u8 mhs_ipvs_settings(struct netns_ipvs *ipvs);
bool mhs_ipvs_expire_nodest(struct netns_ipvs *ipvs);
int mhs_ipvs_conn_count(struct netns_ipvs *ipvs);
bool mhs_ipvs_conn_full(struct netns_ipvs *ipvs);
int mhs_ipvs_services(const struct netns_ipvs *ipvs, int af, bool by_mark);
bool mhs_ipvs_prefers(struct netns_ipvs *ipvs, int af, u32 mark, u16 protocol,
		      const union nf_inet_addr *addr, __be16 port,
		      bool any_port);

static inline u8 mhs_settings(struct netns_ipvs *ipvs)
{
	int sync = READ_ONCE(ipvs->sync_state);
	int drops = READ_ONCE(ipvs->drop_rate);
	int conntrack = ip_vs_conntrack_enabled(ipvs);
	u8 settings = 0;

	if (likely(!(sync | drops | conntrack)))
		return 0;
	if (conntrack)
		settings |= MHS_IPVS_CONNTRACK;
	if (drops)
		settings |= MHS_IPVS_DROPS;
	if (sync && sysctl_backup_only(ipvs))
		settings |= MHS_IPVS_BACKUP_ONLY;
	if (sync & IP_VS_STATE_BACKUP)
		settings |= MHS_IPVS_SYNC_BACKUP;
	if (sync & IP_VS_STATE_MASTER)
		settings |= MHS_IPVS_SYNC_MASTER;
	return settings;
}

/*
 * What is to be known of a packet before its headers are looked at, in one word,
 * since each call costs as much as what it is for: the mark, and from these bits
 * on MHS_IPVS_* of its namespace, and whether it is a candidate at all. 0 if it
 * is none.
 */
enum mhs_look_bits {
	MHS_LOOK_SETTINGS	= 32,
	MHS_LOOK_CANDIDATE	= 63,
};

static inline u64 mhs_look(const struct sk_buff *skb,
			   struct netns_ipvs *ipvs)
{
	return 1ULL << MHS_LOOK_CANDIDATE |
	       (u64)mhs_settings(ipvs) << MHS_LOOK_SETTINGS |
	       skb->mark;
}

u64 mhs_skb_look(const struct sk_buff *skb, const struct net *net);
u64 mhs_skb_look_early(const struct sk_buff *skb, const struct net *net);
void mhs_skb_learn_mtu(struct sk_buff *skb, struct netns_ipvs *ipvs,
		       unsigned int offset, u32 mtu);

u32 mhs_net_routes(const struct net *net, bool v6);
bool mhs_net_is_local(struct net *net, bool v6, const union nf_inet_addr *addr);
bool mhs_forward(struct sk_buff *skb, const struct ip_vs_dest *dest,
		 const struct net *net, u32 routes, bool v6);

void mhs_dest_hold(struct ip_vs_dest *dest);
void mhs_dest_put(struct ip_vs_dest *dest);
int mhs_dest_weight(const struct ip_vs_dest *dest);
int mhs_dest_conn_flags(const struct ip_vs_dest *dest);
void mhs_dest_check_route(struct ip_vs_dest *dest);
bool mhs_dest_is_untouched(const struct ip_vs_dest *dest);

bool mhs_conn_is_over(const struct ip_vs_conn *cp);
void mhs_conn_establish(struct ip_vs_conn *cp);
void mhs_conn_drop(struct ip_vs_conn *cp);
void mhs_conn_put_untouched(struct ip_vs_conn *cp);
void mhs_conn_expire_now(struct ip_vs_conn *cp);
void mhs_conn_count_packet(struct ip_vs_conn *cp);

void mhs_stats_packet(struct ip_vs_dest *dest, struct ip_vs_service *svc,
		      unsigned int bytes, bool is_new);

/* Counters of one CPU, written by that CPU alone. */
struct mhs_counters {
	struct u64_stats_sync syncp;
	u64_stats_t count[];
};

/* Where mhs_stats_stateless() counts. */
#define MHS_COUNTER_PACKETS	0
#define MHS_COUNTER_BYTES	1

/* A macro that bindgen does not evaluate. */
enum mhs_genl {
	MHS_GENL_CAP_NET_ADMIN = GENL_MCAST_CAP_NET_ADMIN,
};

struct mhs_counters __percpu *mhs_counters_alloc(unsigned int n);
void mhs_counters_free(struct mhs_counters __percpu *counters);
void mhs_counters_add(struct mhs_counters __percpu *counters, unsigned int i,
		      u64 by);
void mhs_counters_read(const struct mhs_counters __percpu *counters,
		       unsigned int cpu, u64 *counts, unsigned int n);
unsigned int mhs_next_cpu(unsigned int cpu);

void mhs_stats_stateless(struct ip_vs_dest *dest, struct ip_vs_service *svc,
			 unsigned int bytes, bool is_new,
			 struct mhs_counters __percpu *svc_counters,
			 struct mhs_counters __percpu *dest_counters);
u64 mhs_svc_conns(const struct ip_vs_service *svc, unsigned int cpu);

struct sk_buff *mhs_genlmsg_new(bool may_sleep);
void mhs_genlmsg_free(struct sk_buff *skb);
void mhs_genlmsg_end(struct sk_buff *skb, void *header);
void mhs_genlmsg_cancel(struct sk_buff *skb, void *header);
int mhs_genlmsg_reply(struct sk_buff *skb, struct genl_info *info);
void mhs_genl_lost(const struct genl_family *family, struct net *net);
int mhs_genlmsg_multicast(const struct genl_family *family, struct net *net,
			  struct sk_buff *skb);
bool mhs_genl_has_listeners(const struct genl_family *family, struct net *net);
struct nlattr *mhs_nla_nest_start(struct sk_buff *skb, int type);
void mhs_nla_nest_end(struct sk_buff *skb, struct nlattr *nest);
const struct nlattr *mhs_nla_find_nested(const struct nlattr *nest, int type);
const struct nlattr *mhs_genl_attr(const struct genl_info *info, int type);
bool mhs_genl_is_root(const struct sk_buff *request);
struct netns_ipvs *mhs_genl_ipvs(const struct genl_info *info);
void mhs_genl_fail(const struct genl_info *info, const struct nlattr *attr,
		   const char *message);
void mhs_genl_missing(const struct genl_info *info, const struct nlattr *nest,
		      int type);
void **mhs_genl_state(struct netlink_callback *cb);
void mhs_genl_check_consistent(struct netlink_callback *cb, void *header);

void mhs_local_bh_disable(void);
void mhs_local_bh_enable(void);

void mhs_delayed_work_init(struct delayed_work *work, work_func_t func);
void mhs_delayed_work_arm(struct delayed_work *work, unsigned long delay);
void mhs_delayed_work_arm_if_idle(struct delayed_work *work,
				  unsigned long delay);

#endif
