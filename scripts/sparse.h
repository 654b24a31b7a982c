/* SPDX-License-Identifier: GPL-2.0 */
/* What the kernel's headers use of the compiler and sparse 0.6.4 does not know. */
#define __typeof_unqual__ __typeof__

/* Of literals only; those of other strings are not looked at by sparse. */
#define __builtin_strlen(string) (sizeof(string) - 1)
