/* SPDX-License-Identifier: GPL-2.0 */
/* The headers that bindgen reads; see bindgen_parameters for what it takes. */
#include <linux/jiffies.h>
#include <linux/rcupdate.h>
#include "genl_gen.h"
#include "helpers.h"
