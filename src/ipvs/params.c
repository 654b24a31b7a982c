// SPDX-License-Identifier: GPL-2.0
/* The load options. The module's macro for them knows numbers only. */
#include <linux/module.h>
#include "helpers.h"

unsigned int mhs_table_size = 16381;
module_param_named(table_size, mhs_table_size, uint, 0444);
MODULE_PARM_DESC(table_size, "slots of a service: 251, 509, 1021, 2039, 4093, 8191, 16381 (default), 32749, 65521 or 131071");

/* The bytes of pure::hash::DEFAULT_KEY. */
char mhs_hash_key[64] = "d308a385886a3f24447370032e8a1913";
module_param_string(hash_key, mhs_hash_key, sizeof(mhs_hash_key), 0400);
MODULE_PARM_DESC(hash_key, "key of all hashes, 32 hex digits; balancers that are to agree need the same");

unsigned int mhs_balance = 5;
module_param_named(balance, mhs_balance, uint, 0444);
MODULE_PARM_DESC(balance, "by how many percent a server may exceed its share of slots, 0 to 100 (default 5)");

char mhs_sched_name[64] = "mhs";
module_param_string(sched_name, mhs_sched_name, sizeof(mhs_sched_name), 0444);
MODULE_PARM_DESC(sched_name, "name of the scheduler (default mhs); mh answers for ip_vs_mh");

bool mhs_express;
module_param_named(express, mhs_express, bool, 0444);
MODULE_PARM_DESC(express, "forward stateless packets before routing, connection tracking and most of netfilter (default off)");
