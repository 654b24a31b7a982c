# SPDX-License-Identifier: GPL-2.0
"""The charts of Documentation/performance.rst. The same figures give the same files."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.hashsalt": "ip_vs_mhs",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "axes.axisbelow": True,
    "savefig.facecolor": "white",
})

import matplotlib.pyplot as plt  # noqa: E402

MHS, MHS2, MH, MH2, PLAIN = "#0969da", "#54aeff", "#bc4c00", "#fb8f44", "#6e7781"
COLOURS = {
    "mhs_stable_syn": MHS2,
    "mhs_stable_ack": MHS,
    "mh_new": MH2,
    "mh_existing": MH,
}
RATES = [50_000, 100_000, 250_000]


def _save(figure, directory, name):
    figure.tight_layout()
    file = directory / f"performance-{name}.svg"
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    head, rest = file.read_text().split("?>\n", 1)
    file.write_text(f"{head}?>\n<!-- SPDX-License-Identifier: GPL-2.0 -->\n{rest}")


def _rows(result, directory):
    rows = result["rows"][::-1]
    figure, axes = plt.subplots(figsize=(7.6, 0.26 * len(rows) + 1))
    colours = [
        MHS if row["name"].startswith("mhs") else MH if row["name"][:2] in ("mh", "sh") else PLAIN
        for row in rows
    ]
    axes.barh([row["name"] for row in rows], [row["insns"] for row in rows], color=colours)
    forward = next(row["insns"] for row in rows if row["name"] == "forward")
    axes.axvline(forward, color=PLAIN, linestyle=":", linewidth=1)
    axes.set_xlabel("instructions a packet (dotted: plain forwarding)")
    axes.grid(axis="y", visible=False)
    for place, row in enumerate(rows):
        axes.text(row["insns"] + 40, place, f"{row['insns']:,.0f}", va="center", fontsize=8)
    _save(figure, directory, "rows")


def _series(result, directory, kind, key, label):
    figure, axes = plt.subplots(figsize=(7.6, 3.6))
    for name, colour in COLOURS.items():
        for bits, style in (20, "-"), (12, "--"):
            points = [
                (max(figure_[key], 1), figure_["insns"])
                for figure_ in result[kind]
                if figure_["name"] == name and figure_.get("conn_tab_bits", bits) == bits
                and not (bits == 12 and kind != "entries")
                and not (bits == 12 and name.startswith("mhs"))
            ]
            if points:
                suffix = ", default table of entries" if bits == 12 else ""
                axes.plot(*zip(*points), style, color=colour, marker="o", markersize=4,
                          label=name + suffix)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("instructions a packet")
    axes.legend(fontsize=8, ncols=2)
    _save(figure, directory, kind)


def _decay(result, directory):
    figures = result["decay"]
    figure, axes = plt.subplots(figsize=(7.6, 3.6))
    seconds = [point["seconds"] for point in figures]
    axes.plot(seconds, [point["entries_while_flows_live"] for point in figures], color=MH,
              label="if an entry lived as long as its flow")
    axes.plot(seconds, [point["entries"] for point in figures], color=MHS, label="mhs")
    timeout = figures[0]["timeout"]
    axes.axvline(timeout, color=PLAIN, linestyle=":", linewidth=1)
    axes.text(timeout + 8, axes.get_ylim()[1] * 0.95, "merge", color=PLAIN, va="top")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"seconds after {figures[0]['drained']} of {figures[0]['servers']} servers were "
                    f"drained (session timeout {timeout} s)")
    axes.set_ylabel(f"entries, of {figures[0]['flows']:,} flows")
    axes.legend(fontsize=8)
    _save(figure, directory, "decay")


def _churn(result, directory):
    figure, both = plt.subplots(1, 2, figsize=(7.6, 3.4))
    names = {("mh", 0): ("mh", MH), ("mhs", 0): ("mhs, stable", MHS),
             ("mhs", 1): ("mhs, 1 % unstable", MHS2), ("mhs", 10): ("mhs, 10 % unstable", "#80ccff")}
    for place, point in enumerate(result["churn"]):
        label, colour = names[point["scheduler"], point["unstable_percent"]]
        at = [index + (place - 1.5) * 0.2 for index in range(len(RATES))]
        for axes, value in zip(both, ("entries_per_request", "insns_per_request")):
            scale = 1 if value == "entries_per_request" else 1e-9
            axes.bar(at, [rate * point[value] * scale for rate in RATES], 0.2, color=colour, label=label)
    for axes, label in zip(both, ("entries made a second", "1e9 instructions a second")):
        axes.set_xticks(range(len(RATES)), [f"{rate // 1000}k" for rate in RATES])
        axes.set_xlabel("requests a second")
        axes.set_title(label, fontsize=10)
        axes.grid(axis="x", visible=False)
    both[0].set_yscale("symlog", linthresh=100)
    both[1].legend(fontsize=8)
    _save(figure, directory, "churn")


def _config(result, directory):
    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    for servers, colour in (100, MHS2), (1000, MHS), (4000, "#0a3069"):
        points = [
            (point["table_size"], point["delete"]["at_once"] + point["delete"]["later"])
            for point in result["config"]
            if point["scheduler"] == "mhs" and point["servers"] == servers
        ]
        axes.plot(*zip(*points), color=colour, marker="o", markersize=4, label=f"mhs, {servers} servers")
    points = [point for point in result["config"] if point["scheduler"] == "mh"]
    for point, marker in zip(points, "v^s"):
        axes.plot(point["table_size"], point["delete"]["at_once"] + point["delete"]["later"], marker,
                  color=MH, label=f"mh, {point['servers']} servers")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("slots")
    axes.set_ylabel("instructions to delete one server")
    axes.legend(fontsize=8)
    _save(figure, directory, "config")


def draw(result, directory):
    """Draws all of them."""
    _rows(result, directory)
    _series(result, directory, "servers", "servers", "servers")
    _series(result, directory, "services", "services", "services")
    _series(result, directory, "entries", "others", "entries of another service")
    _decay(result, directory)
    _churn(result, directory)
    _config(result, directory)
