#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The live view in a real terminal of 80 by 24, under tmux: what it shows is what
# happens, it obeys its keys, and it leaves the terminal as it was. With PICTURE
# set to a file, leaves the screen there, colours and all.

. "$(dirname "$0")/../lib.sh"
setup
T=${T:-20}
# A picture takes its time.
if [[ ${PICTURE-} ]]; then T=300; fi
lb ipvsadm --set "$T" "$T" "$T"
service $SVC
service "$SVC6"
start_long 60 --pause 0.5

export TERM=xterm-256color
tmux() { command tmux -L top -f /dev/null "$@" 9>&-; }
tmux new-session -d -x 80 -y 24 "bash --norc"
tmux set -g status off
tmux resize-window -x 80 -y 24
tmux send-keys 'ip netns exec lb ipvsadm-mhs top -d 0.5' Enter
screen() { tmux capture-pane -p; }
shows() { screen | grep -qe "$1"; }

ok "both services" wait_for 30 shows '^▶ TCP 10.0.0.100:80 '
ok "both services" shows '^  TCP \[fd00::100\]:80 '
ok "nothing is longer than the terminal" test "$(screen | wc -L)" -le 80
eq "its servers" "$(screen | grep -c '^10.0.0.1[1-4]:80 *1 live *█')" 4
ok "all slots are stable" shows '^▶ TCP 10.0.0.100:80 *█* *0 %  *- '
lb ipvsadm -e -t $SVC -r 10.0.0.14:80 -g -w 0
long_status .broken >/dev/null
ok "drained: the state" wait_for 20 shows '^10.0.0.14:80 *0 draining [0-9]*[.m][0-9]*s'
ok "drained: unstable slots" shows '^▶ TCP 10.0.0.100:80 *█*▒ '
ok "drained: the event" wait_for 10 shows 'ago  TCP 10.0.0.100:80 update: [1-9]'
lb ipvsadm -d -t $SVC -r 10.0.0.13:80
ok "deleted: grace" wait_for 20 shows '^10.0.0.13:80 *1 grace [0-9]*[.m][0-9]*s'
packets() { long_status .broken >/dev/null; shows '[1-9][0-9]*/s stateless'; }
ok "packets without an entry" wait_for 20 packets
if [[ ${PICTURE-} ]]; then
	short 4000 --conc 8 --first 3000 >/dev/null 9>&- &
	for _ in $(seq 12); do
		long_status .broken >/dev/null
		nap 0.5
	done
	tmux capture-pane -p -e >"$PICTURE"
	wait $!
fi
ok "entries of the drained server" wait_for 10 shows "^10.0.0.14:80 .* $(lb ipvsadm -Ln -t $SVC |
	awk '$2 == "10.0.0.14:80" { print $5 + $6 }')\$"

tmux send-keys Down
ok "down: the other service" wait_for 10 shows '^▶ TCP \[fd00::100\]:80 '
ok "down: its servers" wait_for 10 shows '^\[fd00::11\]:80 *1 live'
tmux send-keys k
ok "k: the first one again" wait_for 10 shows '^▶ TCP 10.0.0.100:80 '
tmux send-keys Space
ok "space: paused" wait_for 10 shows 'paused'
tmux send-keys Space
tmux resize-window -x 120 -y 40
ok "a larger window is used" wait_for 10 bash -c '(($(tmux -L top capture-pane -p | awk "/Service/ { print length }") > 110))'
tmux resize-window -x 40 -y 10
nap 1
ok "a tiny one is survived" shows 'TCP'
tmux resize-window -x 80 -y 24
lb ipvsadm -D -t $SVC
ok "a service is gone" wait_for 10 bash -c '! tmux -L top capture-pane -p | grep -q "TCP 10.0.0.100:80 .*█"'
lb ipvsadm -C
ok "no service at all" wait_for 10 shows 'no service is scheduled by mhs'
service $SVC
ok "and one again" wait_for 10 shows '^▶ TCP 10.0.0.100:80 '
tmux send-keys q
nap 1
tmux send-keys 'echo status $?' Enter
ok "q: ends with status 0, and the shell is back" wait_for 10 shows '^status 0'
ok "q: the picture is gone" bash -c '! tmux -L top capture-pane -p | grep -q "▶"'
# A shell that is not interactive leaves the terminal as it finds it.
cat >"$WORK/killed" <<-EOF
	stty -g >$WORK/before
	sh -c 'echo \$\$ >$WORK/pid; exec ip netns exec lb ipvsadm-mhs top'
	echo status \$?
	stty -g >$WORK/after
EOF
tmux send-keys "clear; bash $WORK/killed" Enter
ok "top once more" wait_for 20 shows '^▶ TCP 10.0.0.100:80 '
eq "on a screen of its own" "$(tmux display -p '#{alternate_on}')" 1
kill "$(cat "$WORK/pid")"
ok "SIGTERM: ends by it" wait_for 10 shows '^status 143'
eq "SIGTERM: the screen of before" "$(tmux display -p '#{alternate_on}')" 0
ok "SIGTERM: the terminal is told" wait_for 5 test -s "$WORK/after"
eq "SIGTERM: the terminal is as it was" "$(cat "$WORK/after")" "$(cat "$WORK/before")"
tmux send-keys 'clear; ipvsadm-mhs top | cat; echo ${PIPESTATUS[0]}' Enter
ok "not into a pipe" wait_for 10 shows 'top needs a terminal'
ok "which is wrong usage" wait_for 10 shows '^2$'
tmux kill-server
stop_long
