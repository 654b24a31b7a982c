# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The workload of "Load Balancing with JET: Just Enough Tracking for Connection Consistency"
# (Mendelson et al., CoNEXT 2021): 468 servers, 4.7 million connections in 1000 seconds, sessions as
# they were measured in a Hadoop cluster, ten servers a minute that die and come back when they are
# upgraded. To be sourced.

# The published distributions, rounded. Seconds that a connection lasts:
SESSION=steps:0.293=0.001,0.378=0.002,0.406=0.003,0.452=0.009,0.476=0.025,0.502=0.31,0.548=10.3
SESSION+=,0.76=10.4,0.899=22.9,0.928=36.4,0.948=101,0.958=214,0.998=228,1=603
# Packets that it has:
PACKETS=steps:0.45=3,0.58=6,0.63=9,0.66=14,0.71=18,0.72=76,0.75=320,0.82=480,0.83=510,0.87=800
PACKETS+=,0.955=2800,0.978=13200,1=1e6
# Seconds that a server is away:
DOWNTIME=steps:0.007=60,0.043=121,0.215=131,0.387=141,0.559=153,0.73=166,0.902=179,0.966=305
DOWNTIME+=,0.982=672,0.998=20500,1=567000

# workload SERVERS CONNECTIONS SPEED: options of ipvsadm-mhs simulate, one a line, for a part of it
# (468 4690000 1 is all), SPEED times as fast. Each server goes as often as it did.
workload() {
	awk -v servers="$1" -v connections="$2" -v speed="$3" -v session="$SESSION" -v downtime="$DOWNTIME" '
		function faster(steps, n, i, step, all) {
			n = split(steps, step, /[:,=]/)
			all = "steps:"
			for (i = 2; i < n; i += 2)
				all = all (i > 2 ? "," : "") step[i] "=" sprintf("%.9g", step[i + 1] / speed)
			return all
		}
		BEGIN {
			printf "--servers\n%d\n--duration\n%.9g\n", servers, 1000 / 60 / speed
			printf "--rate\n%.9g\n", connections / 1000 * speed
			printf "--updates\n%.9g\n", 10 * servers / 468 * speed
			printf "--gap\n%.9g\n", 1 / speed
			print "--session\n" faster(session) "\n--downtime\n" faster(downtime)
		}'
	printf '%s\n' --packets "$PACKETS"
}
