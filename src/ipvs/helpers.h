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
#include <linux/workqueue.h>
#include <net/ip.h>
#include <net/ip_vs.h>

/* The settings of a netns that decide whether a packet may be stateless. */
#define MHS_IPVS_BACKUP_ONLY	0x1	/* net.ipv4.vs.backup_only */
#define MHS_IPVS_CONNTRACK	0x2	/* net.ipv4.vs.conntrack */
#define MHS_IPVS_SYNC_BACKUP	0x4	/* a sync daemon receives entries */
#define MHS_IPVS_EXPIRE_NODEST	0x8	/* net.ipv4.vs.expire_nodest_conn */
#define MHS_IPVS_SYNC_MASTER	0x10	/* a sync daemon sends entries */
#define MHS_IPVS_DROPS		0x20	/* net.ipv4.vs.drop_packet at work */

/* Just before IPVS in LOCAL_IN. */
enum mhs_door {
	MHS_DOOR = NF_IP_PRI_NAT_SRC - 3,
};

/* Load options, see params.c. */
extern unsigned int mhs_table_size;
extern char mhs_hash_key[64];
extern unsigned int mhs_balance;
extern char mhs_sched_name[64];

u32 mhs_ipvs_settings(struct netns_ipvs *ipvs);
int mhs_ipvs_conn_count(struct netns_ipvs *ipvs);
bool mhs_ipvs_conn_full(struct netns_ipvs *ipvs);
int mhs_ipvs_services(const struct netns_ipvs *ipvs, int af, bool by_mark);
bool mhs_ipvs_prefers(struct netns_ipvs *ipvs, int af, u32 mark, u16 protocol,
		      const union nf_inet_addr *addr, __be16 port,
		      bool any_port);

/* What is to be known of a packet before its headers are looked at. */
struct mhs_skb_look {
	u32 mark;
	u16 network;	/* offset of the IP header */
	bool candidate;	/* what ip_vs_in_hook() asks for */
};

struct mhs_skb_look mhs_skb_look(const struct sk_buff *skb);
void mhs_skb_learn_mtu(struct sk_buff *skb, struct netns_ipvs *ipvs,
		       unsigned int offset, u32 mtu);

void mhs_dest_hold(struct ip_vs_dest *dest);
void mhs_dest_put(struct ip_vs_dest *dest);
int mhs_dest_weight(const struct ip_vs_dest *dest);
int mhs_dest_conn_flags(const struct ip_vs_dest *dest);

void mhs_conn_put_untouched(struct ip_vs_conn *cp);
void mhs_conn_expire_now(struct ip_vs_conn *cp);
void mhs_conn_count_packet(struct ip_vs_conn *cp);

void mhs_stats_packet(struct ip_vs_dest *dest, struct ip_vs_service *svc,
		      unsigned int bytes, bool is_new);

void mhs_local_bh_disable(void);
void mhs_local_bh_enable(void);

void mhs_delayed_work_init(struct delayed_work *work, work_func_t func);
void mhs_delayed_work_arm(struct delayed_work *work, unsigned long delay);
void mhs_delayed_work_arm_earlier(struct delayed_work *work,
				  unsigned long delay);

#endif
