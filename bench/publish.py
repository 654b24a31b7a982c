# SPDX-License-Identifier: GPL-2.0
"""Makes the tables and charts of Documentation/performance.rst.

    publish.py RESULT DOCUMENTATION

RESULT is build/bench.json. Writes, below DOCUMENTATION, performance/bench.json (RESULT itself), a
table performance/NAME.csv and a chart figures/performance-NAME.svg of each, and
performance/values.txt, with which the text names figures.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import charts
import goals

RATES = [50_000, 100_000, 250_000]


def number(value):
    """A number as people write it."""
    if isinstance(value, float) and value < 100:
        return f"{value:.2f}"
    return f"{round(value):,}"


def rows(result):
    yield ["row", "what it is", "instructions", "x forward", "entries are found in"]
    for row in result["rows"]:
        bits = row.get("conn_tab_bits")
        yield [
            f"``{row['name']}``",
            DESCRIPTIONS.get(row["name"], ""),
            number(row["insns"]),
            f"{row['ratio_to_forward']:.2f}",
            f"2^{bits} buckets" if bits else "-",
        ]


# What a row is, in a few words.
DESCRIPTIONS = {
    "localin_drop": "dropped in LOCAL_IN: what it takes to get to IPVS",
    "forward": "plain forwarding, IPVS not loaded",
    "forward_v6": "the same, IPv6",
    "forward_ipvs": "plain forwarding, IPVS loaded and with a service",
    "mh_new": "SYN makes an entry",
    "mh_existing": "ACK of a flow that has an entry",
    "mh_bits12_new": "SYN makes an entry, default table of entries",
    "mh_bits12_existing": "ACK with an entry, default table of entries",
    "sh_new": "SYN makes an entry",
    "sh_existing": "ACK of a flow that has an entry",
    "mhs_stable_syn": "SYN, no entry",
    "mhs_stable_ack": "ACK, no entry",
    "mhs_stable_udp": "UDP, no entry",
    "mhs_stable_syn_v6": "SYN over IPv6, no entry",
    "mhs_stable_ack_v6": "ACK over IPv6, no entry",
    "mhs_stable_icmp": "ICMP error about a flow, no entry",
    "mhs_express_syn": "SYN, express mode",
    "mhs_express_ack": "ACK, express mode",
    "mhs_express_udp": "UDP, express mode",
    "mhs_express_ack_v6": "ACK over IPv6, express mode",
    "mhs_stable_ack_ipip": "ACK, through an IPIP tunnel",
    "mhs_stable_ack_gre": "ACK, through a GRE tunnel",
    "mhs_stable_ack_gue": "ACK, through a GUE tunnel",
    "mhs_unstable_syn": "SYN makes an entry, slot unstable",
    "mhs_unstable_ack": "ACK makes an entry, slot unstable",
    "mhs_pinned_ack": "ACK of a flow that its SYN has pinned",
    "mhs_pinned_old_ack": "ACK of a flow that an ACK has pinned",
    "mhs_unstable_rst": "RST without an entry, slot unstable",
    "mhs_partly_unstable_ack": "ACK, 1 of 100 slots unstable",
    "mhs_merged_pinned_ack": "ACK of a flow pinned to another server, slot stable again",
    "mhs_merged_ack": "ACK without an entry, in a slot where others are pinned",
    "mhs_unread_ack": "ACK, no entry, as above",
    "mhs_read_ack": "the same while ``ipvsadm-mhs`` reads ten times a second",
    "mhs_express_syn": "SYN, express mode",
    "mhs_express_ack": "ACK, express mode",
}


def goal_table(result):
    yield ["what", "at most", "measured", "met"]
    for goal in result["goals"]:
        yield [goal["goal"], number(goal["limit"]), number(goal["measured"]),
               "yes" if goal["met"] else "**no**"]


def series(kind, key):
    """The rows of a series, a column for each kind of packet."""
    def table(result):
        figures = result[kind]
        names = list(dict.fromkeys(figure["name"] for figure in figures))
        bits = kind == "entries"
        yield [f"number of {kind}"] + (["buckets"] if bits else []) + [f"``{name}``" for name in names]
        places = dict.fromkeys((figure[key], figure.get("conn_tab_bits", 20) if bits else None)
                               for figure in figures)
        for place in places:
            insns = {
                figure["name"]: number(figure["insns"])
                for figure in figures
                if (figure[key], figure.get("conn_tab_bits", 20) if bits else None) == place
            }
            yield ([number(place[0])] + ([f"2^{place[1]}"] if bits else [])
                   + [insns.get(name, "-") for name in names])

    return table


def churn(result):
    yield ["scheduler", "slots unstable", "instructions a request", "entries a request"] + [
        f"{rate // 1000}k requests/s: {what}"
        for rate in RATES for what in ("entries/s", "1e9 instructions/s")
    ]
    for figure in result["churn"]:
        line = [figure["scheduler"], f"{figure['unstable_percent']} %",
                number(figure["insns_per_request"]), f"{figure['entries_per_request']:.3f}"]
        for rate in RATES:
            line += [number(round(rate * figure["entries_per_request"])),
                     f"{rate * figure['insns_per_request'] / 1e9:.2f}"]
        yield line


def memory(result):
    yield ["scheduler", "slots", "servers", "bytes of a service", "of them the scheduler's"]
    for figure in result["memory"]:
        if figure["what"] == "service":
            yield [figure["scheduler"], number(figure.get("table_size", 0)), number(figure["servers"]),
                   number(figure["bytes"]), number(figure.get("of_scheduler", 0))]


def flows(result):
    yield ["scheduler", "slots", "bytes a flow", "entries of 100,000 flows",
           "after 1 of 100 servers was deleted", "after 1 of 100 was drained"]
    for figure in result["memory"]:
        if figure["what"] == "flows":
            yield [figure["scheduler"], number(figure["table_size"]),
                   number(round(figure["bytes_per_flow"])), number(figure["entries"]),
                   number(figure["entries_one_deleted"]), number(figure["entries_one_drained"])]


def config(result):
    yield ["scheduler", "slots", "servers", "delete one: at once", "later", "add one: at once", "later",
           "restore all"]
    for figure in result["config"]:
        yield [figure["scheduler"], number(figure["table_size"]), number(figure["servers"]),
               *(number(figure[what][when])
                 for what in ("delete", "add") for when in ("at_once", "later")),
               number(figure["restore"]["at_once"] + figure["restore"]["later"])]


def merge(result):
    yield ["slots", "change of all servers", "settling it", "merging it", "merging, a slot"]
    for figure in result["merge"]:
        yield [number(figure["table_size"]), number(figure["change"]), number(figure["settle"]),
               number(figure["merge"]), f"{figure['merge'] / figure['table_size']:.0f}"]


def cpus(result):
    yield ["packet", "two CPUs / one", "writes to shared lines a packet", "by"]
    shared = {figure["name"]: figure for figure in result["shared"]}
    for figure in result["cpus"]:
        writes = shared[figure["name"]]
        by = ", ".join(name.split(" [")[0] for name in list(writes["by_function"])[:4])
        yield [f"``{figure['name']}``", f"{figure['ratio']:.2f}",
               f"{writes['writes_per_packet']:.2f}", by or "-"]


def functions(result):
    modules = ["kernel", "ip_vs", "ip_vs_mh", "ip_vs_mhs"]
    yield ["row", *modules, "most of ip_vs_mhs"]
    for figure in result["functions"]:
        most = ", ".join(f"``{name}`` {count:.0f}" for name, count in list(figure["inlined"].items())[:5])
        yield [f"``{figure['name']}``",
               *(number(round(figure["by_module"].get(name, 0))) for name in modules), most or "-"]


TABLES = {
    "rows": rows,
    "goals": goal_table,
    "servers": series("servers", "servers"),
    "services": series("services", "services"),
    "entries": series("entries", "others"),
    "churn": churn,
    "memory": memory,
    "flows": flows,
    "config": config,
    "merge": merge,
    "cpus": cpus,
    "functions": functions,
}


def values(result):
    """Figures by the names that the text has for them."""
    found = {"kernel": result["kernel"]}
    for row in result["rows"]:
        found[row["name"]] = number(row["insns"])
        found[f"{row['name']} ratio"] = f"{row['ratio_to_forward']:.2f}"
    found["bytes of a slot"] = f"{goals.per_slot(result):.2f}"
    return found


def main():
    source, documentation = map(Path, sys.argv[1:])
    result = json.loads(source.read_text())
    missing = [name for name in (*TABLES, "decay") if name not in result and name not in ("flows",)]
    if missing:
        sys.exit(f"error: {source} lacks {', '.join(missing)}: run scripts/bench for all parts")
    tables = documentation / "performance"
    tables.mkdir(exist_ok=True)
    for name, table in TABLES.items():
        with open(tables / f"{name}.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table(result))
    lines = [".. SPDX-License-Identifier: GPL-2.0", ""]
    lines += [f".. |{name}| replace:: {value}" for name, value in values(result).items()]
    (tables / "values.txt").write_text("\n".join(lines) + "\n")
    shutil.copy(source, tables / "bench.json")
    charts.draw(result, documentation / "figures")


main()
