// SPDX-License-Identifier: GPL-2.0
/* An object of its own: kbuild links none into two modules. */
#include "../src/ipvs/helpers.c"
