/* SPDX-License-Identifier: GPL-2.0 */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/ip_vs_mhs.yaml */
/* YNL-GEN kernel header */
/* To regenerate run: scripts/ynl */

#ifndef _LINUX_IPVS_MHS_GEN_H
#define _LINUX_IPVS_MHS_GEN_H

#include <net/netlink.h>
#include <net/genetlink.h>

#include <uapi/linux/ip_vs_mhs.h>

/* Common nested types */
extern const struct nla_policy ipvs_mhs_service_key_nl_policy[IPVS_MHS_KEY_A_FWMARK + 1];

/* Ops table for IPVS_MHS */
extern const struct genl_split_ops ipvs_mhs_nl_ops[7];

int ipvs_mhs_nl_get_service_start(struct netlink_callback *cb);
int ipvs_mhs_nl_get_dest_start(struct netlink_callback *cb);
int ipvs_mhs_nl_get_slots_start(struct netlink_callback *cb);
int ipvs_mhs_nl_get_counters_start(struct netlink_callback *cb);
int ipvs_mhs_nl_get_service_done(struct netlink_callback *cb);
int ipvs_mhs_nl_get_dest_done(struct netlink_callback *cb);
int ipvs_mhs_nl_get_slots_done(struct netlink_callback *cb);
int ipvs_mhs_nl_get_counters_done(struct netlink_callback *cb);

int ipvs_mhs_nl_get_service_doit(struct sk_buff *skb, struct genl_info *info);
int ipvs_mhs_nl_get_service_dumpit(struct sk_buff *skb,
				   struct netlink_callback *cb);
int ipvs_mhs_nl_get_dest_dumpit(struct sk_buff *skb,
				struct netlink_callback *cb);
int ipvs_mhs_nl_get_slots_dumpit(struct sk_buff *skb,
				 struct netlink_callback *cb);
int ipvs_mhs_nl_get_counters_dumpit(struct sk_buff *skb,
				    struct netlink_callback *cb);
int ipvs_mhs_nl_get_netns_doit(struct sk_buff *skb, struct genl_info *info);
int ipvs_mhs_nl_set_netns_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	IPVS_MHS_NLGRP_EVENTS,
};

#endif /* _LINUX_IPVS_MHS_GEN_H */
