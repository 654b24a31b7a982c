// SPDX-License-Identifier: GPL-2.0
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/ip_vs_mhs.yaml */
/* YNL-GEN kernel source */
/* To regenerate run: scripts/ynl */

#include <net/netlink.h>
#include <net/genetlink.h>

#include "genl_gen.h"

#include <uapi/linux/ip_vs_mhs.h>

/* Sparse enums validation callbacks */
static int
ipvs_mhs_key_a_family_validate(const struct nlattr *attr,
			       struct netlink_ext_ack *extack)
{
	switch (nla_get_u16(attr)) {
	case IPVS_MHS_FAMILY_INET:
		fallthrough;
	case IPVS_MHS_FAMILY_INET6:
		return 0;
	}
	NL_SET_ERR_MSG_ATTR(extack, attr, "invalid enum value");
	return -EINVAL;
}

static int
ipvs_mhs_key_a_protocol_validate(const struct nlattr *attr,
				 struct netlink_ext_ack *extack)
{
	switch (nla_get_u16(attr)) {
	case IPVS_MHS_PROTOCOL_TCP:
		fallthrough;
	case IPVS_MHS_PROTOCOL_UDP:
		fallthrough;
	case IPVS_MHS_PROTOCOL_SCTP:
		return 0;
	}
	NL_SET_ERR_MSG_ATTR(extack, attr, "invalid enum value");
	return -EINVAL;
}

/* Common nested types */
const struct nla_policy ipvs_mhs_service_key_nl_policy[IPVS_MHS_KEY_A_FWMARK + 1] = {
	[IPVS_MHS_KEY_A_FAMILY] = NLA_POLICY_VALIDATE_FN(NLA_U16, &ipvs_mhs_key_a_family_validate),
	[IPVS_MHS_KEY_A_PROTOCOL] = NLA_POLICY_VALIDATE_FN(NLA_U16, &ipvs_mhs_key_a_protocol_validate),
	[IPVS_MHS_KEY_A_ADDRESS] = NLA_POLICY_MAX_LEN(16),
	[IPVS_MHS_KEY_A_PORT] = { .type = NLA_BE16, },
	[IPVS_MHS_KEY_A_FWMARK] = NLA_POLICY_MIN(NLA_U32, 1),
};

/* IPVS_MHS_CMD_GET_SERVICE - do */
static const struct nla_policy ipvs_mhs_get_service_nl_policy[IPVS_MHS_SERVICE_A_SERVICE + 1] = {
	[IPVS_MHS_SERVICE_A_SERVICE] = NLA_POLICY_NESTED(ipvs_mhs_service_key_nl_policy),
};

/* IPVS_MHS_CMD_GET_DEST - dump */
static const struct nla_policy ipvs_mhs_get_dest_nl_policy[IPVS_MHS_DEST_A_SERVICE + 1] = {
	[IPVS_MHS_DEST_A_SERVICE] = NLA_POLICY_NESTED(ipvs_mhs_service_key_nl_policy),
};

/* IPVS_MHS_CMD_GET_SLOTS - dump */
static const struct nla_policy ipvs_mhs_get_slots_nl_policy[IPVS_MHS_SLOTS_A_UNSTABLE_ONLY + 1] = {
	[IPVS_MHS_SLOTS_A_SERVICE] = NLA_POLICY_NESTED(ipvs_mhs_service_key_nl_policy),
	[IPVS_MHS_SLOTS_A_UNSTABLE_ONLY] = { .type = NLA_FLAG, },
};

/* IPVS_MHS_CMD_GET_COUNTERS - dump */
static const struct nla_policy ipvs_mhs_get_counters_nl_policy[IPVS_MHS_CPU_A_SERVICE + 1] = {
	[IPVS_MHS_CPU_A_SERVICE] = NLA_POLICY_NESTED(ipvs_mhs_service_key_nl_policy),
};

/* IPVS_MHS_CMD_SET_NETNS - do */
static const struct nla_policy ipvs_mhs_set_netns_nl_policy[IPVS_MHS_NETNS_A_EXPRESS + 1] = {
	[IPVS_MHS_NETNS_A_EXPRESS] = NLA_POLICY_MAX(NLA_U8, 1),
};

/* Ops table for IPVS_MHS */
const struct genl_split_ops ipvs_mhs_nl_ops[7] = {
	{
		.cmd		= IPVS_MHS_CMD_GET_SERVICE,
		.doit		= ipvs_mhs_nl_get_service_doit,
		.policy		= ipvs_mhs_get_service_nl_policy,
		.maxattr	= IPVS_MHS_SERVICE_A_SERVICE,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd	= IPVS_MHS_CMD_GET_SERVICE,
		.start	= ipvs_mhs_nl_get_service_start,
		.dumpit	= ipvs_mhs_nl_get_service_dumpit,
		.done	= ipvs_mhs_nl_get_service_done,
		.flags	= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= IPVS_MHS_CMD_GET_DEST,
		.start		= ipvs_mhs_nl_get_dest_start,
		.dumpit		= ipvs_mhs_nl_get_dest_dumpit,
		.done		= ipvs_mhs_nl_get_dest_done,
		.policy		= ipvs_mhs_get_dest_nl_policy,
		.maxattr	= IPVS_MHS_DEST_A_SERVICE,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= IPVS_MHS_CMD_GET_SLOTS,
		.start		= ipvs_mhs_nl_get_slots_start,
		.dumpit		= ipvs_mhs_nl_get_slots_dumpit,
		.done		= ipvs_mhs_nl_get_slots_done,
		.policy		= ipvs_mhs_get_slots_nl_policy,
		.maxattr	= IPVS_MHS_SLOTS_A_UNSTABLE_ONLY,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= IPVS_MHS_CMD_GET_COUNTERS,
		.start		= ipvs_mhs_nl_get_counters_start,
		.dumpit		= ipvs_mhs_nl_get_counters_dumpit,
		.done		= ipvs_mhs_nl_get_counters_done,
		.policy		= ipvs_mhs_get_counters_nl_policy,
		.maxattr	= IPVS_MHS_CPU_A_SERVICE,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd	= IPVS_MHS_CMD_GET_NETNS,
		.doit	= ipvs_mhs_nl_get_netns_doit,
		.flags	= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= IPVS_MHS_CMD_SET_NETNS,
		.doit		= ipvs_mhs_nl_set_netns_doit,
		.policy		= ipvs_mhs_set_netns_nl_policy,
		.maxattr	= IPVS_MHS_NETNS_A_EXPRESS,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
};

static const struct genl_multicast_group ipvs_mhs_nl_mcgrps[] = {
	[IPVS_MHS_NLGRP_EVENTS] = { "events", },
};
