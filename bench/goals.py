# SPDX-License-Identifier: GPL-2.0
"""What the figures should be, and whether they are."""


def _row(result, name):
    return next((row["insns"] for row in result.get("rows", []) if row["name"] == name), None)


def _config(result, scheduler, size, servers):
    for figure in result.get("config", []):
        if (figure["scheduler"], figure["table_size"], figure["servers"]) == (scheduler, size, servers):
            return figure
    return None


def _spread(figures, name):
    """By how much the figures of a row differ: most / least."""
    insns = [figure["insns"] for figure in figures if figure["name"] == name]
    return max(insns) / min(insns) if len(insns) > 1 else None


def _rows(result):
    forward = _row(result, "forward")
    for name in "mhs_stable_syn", "mhs_stable_ack":
        insns = _row(result, name)
        yield f"{name} / forward", 1.30, insns and insns / forward
        yield f"{name} / mh_existing", 0.77, insns and insns / _row(result, "mh_existing")
        yield f"{name} / mh_new", 0.55, insns and insns / _row(result, "mh_new")
    for name in "mhs_express_syn", "mhs_express_ack":
        insns = _row(result, name)
        yield f"{name} / forward", 0.70, insns and insns / forward
    for name, beside in (
        ("mhs_pinned_ack", "mh_existing"),
        ("mhs_unstable_syn", "mh_new"),
        ("mhs_unstable_ack", "mh_new"),
    ):
        insns = _row(result, name)
        yield f"{name} / {beside}", 1.00, insns and insns / _row(result, beside)


def _series(result):
    for kind in "servers", "services", "entries":
        figures = result.get(kind, [])
        for name in "mhs_stable_syn", "mhs_stable_ack":
            yield f"{name}, most / least over the number of {kind}", 1.05, _spread(figures, name)


def per_slot(result):
    """Bytes of a slot: what services of one server differ by, over what their tables differ by."""
    sizes = {
        figure["table_size"]: figure["of_scheduler"]
        for figure in result.get("memory", [])
        if figure["what"] == "service" and figure["scheduler"] == "mhs" and figure["servers"] == 1
    }
    if len(sizes) < 2:
        return None
    least, most = min(sizes), max(sizes)
    # Memory comes in pages.
    return round((sizes[most] - sizes[least]) / (most - least), 2)


def _memory(result):
    yield "bytes of a slot", 6.0, per_slot(result)
    for figure in result.get("memory", []):
        if figure["scheduler"] != "mhs" or figure["table_size"] != 16381:
            continue
        if figure["what"] == "service" and figure["servers"] == 100:
            yield "KiB of a service of 100 servers, 16381 slots", 160, figure["of_scheduler"] / 1024
        if figure["what"] == "flows":
            yield "bytes of a stable flow", 0, figure["bytes_per_flow"]
            yield "of 100000 flows, entries after 1 of 100 servers was deleted", 1250, figure[
                "entries_one_deleted"
            ]
            yield "of 100000 flows, entries after 1 of 100 servers was drained", 1250, figure[
                "entries_one_drained"
            ]


def _configuration(result):
    mh, mhs = (_config(result, scheduler, 4093, 1000) for scheduler in ("mh", "mhs"))
    for what in "add", "delete":
        cost = [figure and sum(figure[what].values()) for figure in (mh, mhs)]
        yield f"{what} one of 1000 servers, 4093 slots, mhs / mh", 1.00, cost[0] and cost[1] / cost[0]
    mhs = _config(result, "mhs", 16381, 4000)
    # The clock is one of instructions: 10 s under emulation are some 5e9 of them.
    yield "restore 4000 servers, 16381 slots, 1e9 instructions", 5.0, mhs and sum(
        mhs["restore"][when] for when in ("at_once", "later")
    ) / 1e9


def goals(result):
    """For each goal: what it is about, the most that it may be, what it is, whether it is met. What was
    not measured is left out."""
    return [
        {"goal": text, "limit": limit, "measured": round(value, 3), "met": value <= limit}
        for part in (_rows, _series, _memory, _configuration)
        for text, limit, value in part(result)
        if value is not None
    ]
