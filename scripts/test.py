# SPDX-License-Identifier: GPL-2.0
"""Everything that proves the module, or a part of it: the jobs of scripts/test, which says how to call it."""

import argparse
import json
import os
import re
import sys
import time
import tomllib

import jobs
import selftests
from jobs import BUILD, CACHE, TOP, Job, Run, Times

SCRIPTS = TOP / "scripts"
KINDS = ["um", "smp", "stock"]
# Seconds that a script is taken to last which was never run, and how long a guest should be busy: so many of
# them that the last ones end together.
UNKNOWN = {"um": 15, "smp": 30, "debug": 60, "stock": 60}
BUSY = {"um": 100, "smp": 180, "debug": 1000, "stock": 500}
# Seconds by the clock of the guest that a script may take, and those by the host's for a guest: that is there
# for a kernel that hangs.
LIMIT = {"um": 900, "smp": 900, "debug": 3000, "stock": 900}
LONGEST = {"um": 2400, "smp": 2400, "debug": 12000, "stock": 12000}
KUNIT = "modprobe ip_vs; dmesg -C; modprobe ip_vs_mhs_kunit; dmesg --color=never; rmmod ip_vs_mhs_kunit"


def part(name):
    """A job that has a part of scripts/env.sh in the cache; it is no result unless it fails."""

    def work(job):
        if job.command("bash", "-c", f'. "{SCRIPTS}/env.sh"; {name}'):
            job.result(False, f"{name} is in the cache")

    return work


def script(text, *words, ktap=None):
    """A job that runs one of the scripts: one result, and those of its KTAP stream."""

    def work(job):
        out = BUILD / f"{ktap}.ktap" if ktap else None
        good = job.command(SCRIPTS / words[0], *words[1:], out=out) == 0
        if ktap:
            good &= job.ktap(out, text)
        else:
            job.result(good, text)

    return work


def cargo_core(job):
    """The tests of src/core on this machine."""
    log = BUILD / "cargo.log"

    def show(line):
        if line.startswith("|") or re.match(r"test .*(ok|FAILED)$", line):
            job.say(line)
        if re.match(r"test .* \.\.\. ok$", line):
            job.passed += 1
        elif re.match(r"test .* \.\.\. FAILED$", line):
            job.failed += 1
            Run.complain(f"not ok {line}")

    status = job.command(
        "bash", "-c", "exec cargo test --no-fail-fast -- --show-output 2>&1",
        out=log, line=show, quiet=True, cwd=TOP / "src/core", env={"CARGO_TARGET_DIR": str(CACHE / "cargo")},
    )  # fmt: skip
    if (status and not job.failed) or not job.passed:
        for line in log.read_text().splitlines()[-30:]:
            job.say(line)
        job.result(False, "cargo test in src/core")


def kernel_log(job, name, log):
    job.step(f"{name}: kernel log", SCRIPTS / "kmsg-check", log)


def kunit(kind):
    """The KUnit suites."""

    def work(job):
        name = f"kunit-{kind}"
        out, log = BUILD / f"{name}.ktap", BUILD / f"{name}.log"
        lines = []

        def show(line):
            if found := re.match(r"\[[^]]*\] {5,}((ok|not ok) .*)", line):
                lines.append(found[1])
                job.say(found[1])

        guest = [SCRIPTS / "guest", kind, "--timeout", 300, "--log", log, "--", "bash", "-ec", KUNIT]
        status = job.command(*guest, line=show, quiet=True)
        wanted = (TOP / "kunit/ip_vs_mhs_kunit.rs").read_text().count("#[test]")
        out.write_text("\n".join([*lines, f"1..{wanted}"]) + "\n")
        job.ktap(out, f"KUnit in {kind}")
        if status:
            job.result(False, f"KUnit in {kind}: the guest ended with {status}")
        kernel_log(job, f"KUnit in {kind}", log)

    return work


class Guest:
    """A guest that runs some of the scripts, and how long each takes."""

    def __init__(self, kind, number, names, times):
        self.kind, self.names, self.times = kind, names, times
        self.name = f"{kind}.{number}"
        self.took = []
        self.begin = self.script = None
        self.last = ""

    def line(self, line):
        """Scripts begin and end with these lines."""
        if found := re.match(r"# ([\w:-]+)$", line):
            if found[1] in self.names:
                self.script, self.begin = found[1], time.monotonic()
                self.job.doing = self.script
        elif found := re.match(r"# ([\w:-]+) took (\d+) s", line):
            if found[1] == self.script:
                seconds = time.monotonic() - self.begin
                self.times.put(f"{self.kind} {self.script}", seconds)
                self.took.append(
                    {"kind": self.kind, "script": self.script, "seconds": round(seconds, 1), "guest": int(found[2])}
                )
                self.script, self.job.doing = None, ""
        if line.strip():
            self.last = line

    def work(self, job):
        self.job = job
        out, log = BUILD / f"{self.name}.ktap", BUILD / f"{self.name}.log"
        options = ["--paced", "--timeout", LONGEST[self.kind], "--log", log]
        run = ["env", f"LIMIT={LIMIT[self.kind]}", "bash", "run.sh", *self.names]
        job.command(SCRIPTS / "guest", self.kind, *options, "--", *run, out=out, line=self.line)
        if self.script:
            job.result(False, f"{self.name}: the guest ended in {self.script}; its last line: {self.last}")
        job.ktap(out, self.name)
        kernel_log(job, self.name, log)


def guests(kind, names, times, after):
    """The jobs that run these scripts, and the guests they run in."""

    def seconds(name):
        return times.get(f"{kind} {name}", UNKNOWN[kind])

    whole = sum(seconds(name) for name in names)
    number = max(os.cpu_count(), round(whole / BUSY[kind]))
    made, found = [], []
    for i, (hand, load) in enumerate(selftests.deal(names, number, seconds)):
        guest = Guest(kind, i, hand, times)
        found.append(guest)
        made.append(Job(guest.name, guest.work, after, seconds=load, cpus=0 if kind == "smp" else 1))
        # What the dealing knows of it is better than how long the guest of that number took.
        times.known.pop(guest.name, None)
    return made, found


def kind_of(kind):
    """What is needed before a guest of this kind runs."""
    roots = [
        Job("base", part("baseroot"), seconds=1),
        Job("buildroot", part("buildroot"), ["base"], seconds=1),
        Job("guestroot", part("guestroot"), ["base"], seconds=1),
        Job("kernel", part("kernel"), seconds=2),
        Job(f"{kind} kernel", part(kind), ["buildroot", "kernel"], seconds=2),
        Job(f"{kind} module", script(f"{kind}: the module builds", "build", kind), [f"{kind} kernel"], seconds=20),
    ]
    if kind == "stock":
        roots.append(Job("guest disk", part("machine"), ["guestroot", "kernel"], seconds=2))
    return roots


def whole_test(kinds, times):
    """All jobs of make test."""
    tool = Job("tool", script("the tool builds", "tool"), seconds=5)
    made, found = {tool.name: tool}, []

    def add(*more):
        for job in more:
            made.setdefault(job.name, job)

    add(
        Job("core", cargo_core, seconds=30),
        Job("tool tests", script("ipvsadm-mhs", "tool-test", ktap="tool"), ["tool"], seconds=20),
        Job("cache tests", script("cache", "cache-test", ktap="cache"), seconds=20, cpus=0),
        Job("manual", script("the manual has no warnings", "doc"), seconds=20),
    )
    for kind in kinds:
        add(*kind_of(kind))
        ready = [f"{kind} module", "tool", "guestroot"] + ["guest disk"] * (kind == "stock")
        if kind == "um":
            add(Job("run tests", script("run", "run-test", "um", ktap="run"), ready, seconds=15, cpus=0))
        if kind != "stock":
            add(Job(f"{kind} KUnit", kunit(kind), ready, seconds=5))
        jobs_, guests_ = guests(kind, selftests.of(kind), times, ready)
        add(*jobs_)
        found += guests_
    if "stock" in kinds:
        add(
            Job("sparse", part("sparse"), ["buildroot"], seconds=1),
            Job("lint", script("lint", "lint"), ["stock kernel", "sparse"], seconds=60),
            Job("plain make", script("plain make", "plain-make"), ["stock kernel"], seconds=20),
            Job("bench", bench, ["stock module", "guest disk", "tool"], seconds=150),
        )
    return list(made.values()), found


def bench(job):
    """The main rows of the bench, against those that were accepted."""
    out = BUILD / "gate.ktap"
    job.command(SCRIPTS / "bench", "--quick", out=out)
    job.ktap(out, "bench")


def some(kinds, names, times, kunit_too=False):
    """The jobs that run these scripts where they can run: in each kind that was asked for, else in the first
    that can."""
    made, found = {}, []
    for kind in kinds or KINDS:
        mine = [name for name in names if name in selftests.can_run(kind)]
        if not kinds:
            names = [name for name in names if name not in mine]
        if not mine and not kunit_too:
            continue
        ready = [f"{kind} module", "guestroot", "tool"] + ["guest disk"] * (kind == "stock")
        for job in kind_of(kind):
            made.setdefault(job.name, job)
        if kunit_too and kind != "stock":
            made[f"{kind} KUnit"] = Job(f"{kind} KUnit", kunit(kind), ready, seconds=5)
            kunit_too = bool(kinds)
        if any(uses_tool(name) for name in mine):
            made["tool"] = Job("tool", script("the tool builds", "tool"), seconds=5)
        jobs_, guests_ = guests(kind, mine, times, ready)
        made |= {job.name: job for job in jobs_}
        found += guests_
    return list(made.values()), found


def uses_tool(name):
    return "ipvsadm-mhs" in (selftests.TESTS / f"{name.removeprefix('express:')}.sh").read_text()


def touched(file, times, kinds):
    """The jobs that a change of a file touches. Which selftests notice that a source is broken is known from
    scripts/mutants.toml."""
    path = (TOP / file).resolve()
    if not path.exists() or not path.is_relative_to(TOP):
        raise SystemExit(f"error: FILE={file}: there is no such file in {TOP}")
    name = str(path.relative_to(TOP))
    made, names, units = [], [], False
    if name.startswith(("src/", "kunit/", "Kbuild")):
        mutants = tomllib.loads((SCRIPTS / "mutants.toml").read_text())["mutant"]
        tests = [mutant["test"].split() for mutant in mutants if mutant["file"] == name]
        names = [test for where, test in tests if where == "selftest"] or ["stateless", "changes"]
        units = any(where == "kunit" for where, _ in tests) or name.startswith("kunit/")
        if name.startswith("src/core/"):
            made.append(Job("core", cargo_core, seconds=30))
    elif name.startswith("selftests/tests/"):
        names = [script for script in selftests.scripts() if script.removeprefix("express:") == path.stem]
    elif name.startswith("selftests/"):
        names = [s for s in selftests.scripts() if path.name in (selftests.TESTS / f"{s}.sh").read_text()] if ":" not in name else []
        names = names or ["stateless", "changes"]
    elif name.startswith("ipvsadm-mhs/"):
        names = [script for script in selftests.scripts() if script.startswith("tool-")]
        made += [
            Job("tool", script("the tool builds", "tool"), seconds=5),
            Job("tool tests", script("ipvsadm-mhs", "tool-test", ktap="tool"), ["tool"], seconds=20),
        ]
    elif name.startswith(("Documentation/", "README")):
        made.append(Job("manual", script("the manual has no warnings", "doc"), seconds=20))
    else:
        made.append(Job("cache tests", script("cache", "cache-test", ktap="cache"), seconds=20, cpus=0))
        names = ["stateless"]
    more, found = some(kinds, list(dict.fromkeys(names)), times, units)
    there = {job.name for job in made}
    return made + [job for job in more if job.name not in there], found


def report(run, found):
    """What each part took, and the ten slowest scripts: printed, and in build/test-times.json."""
    took = sorted((row for guest in found for row in guest.took), key=lambda row: -row["seconds"])
    parts = [
        {"part": job.name, "begin": round(job.began - run.began, 1), "seconds": round(job.ended - job.began, 1),
         "passed": job.passed, "failed": job.failed}
        for job in run.jobs
    ]  # fmt: skip
    result = {"seconds": round(run.seconds, 1), "passed": run.passed, "failed": run.failed,
              "parts": sorted(parts, key=lambda row: row["begin"]), "scripts": took}  # fmt: skip
    (BUILD / "test-times.json").write_text(json.dumps(result, indent=1) + "\n")
    print("== what each part took: seconds, from when on, results")
    for row in result["parts"]:
        if row["seconds"] >= 1:
            print(f"{row['seconds']:7.0f} {row['begin']:6.0f} {row['passed'] + row['failed']:5}  {row['part']}")
    if took:
        print("== the slowest scripts: seconds, those by the guest's clock")
    for row in took[:10]:
        print(f"{row['seconds']:7.0f} {row['guest']:6}  {row['kind']} {row['script']}")
    print(f"== {run.seconds:.0f} s in all")


def words(name):
    return os.environ.get(name, "").replace(",", " ").split()


def main():
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--whole", choices=sorted(selftests.HAS), metavar="KIND",
                        help="KUnit and every selftest that this kind of guest can run")  # fmt: skip
    whole = parser.parse_args().whole
    times, kinds, only, files = Times(), words("GUESTS"), words("ONLY"), words("FILE")
    for kind in kinds:
        if kind not in selftests.HAS:
            raise SystemExit(f"error: GUESTS={kind}: allowed are {' '.join(selftests.HAS)}")
    for name in only if only != ["all"] else []:
        if name not in selftests.scripts() and name.removeprefix("express:") not in selftests.scripts():
            raise SystemExit(f"error: ONLY={name}: there is no such selftest; there are: {' '.join(selftests.scripts())}")
    BUILD.mkdir(exist_ok=True)
    if whole:
        names = selftests.can_run(whole)
        print(f"== not in {whole}: {' '.join(s for s in selftests.scripts() if s not in names)}")
        made, found = some([whole], names, times, whole != "stock")
    elif only == ["all"]:
        made, found = [], []
        for kind in kinds or KINDS:
            more, guests_ = some([kind], selftests.of(kind), times)
            made += [job for job in more if job.name not in {other.name for other in made}]
            found += guests_
    elif only:
        made, found = some(kinds, only, times)
    elif files:
        made, found = [], []
        for file in files:
            more, guests_ = touched(file, times, kinds)
            made += [job for job in more if job.name not in {other.name for other in made}]
            found += guests_
    else:
        made, found = whole_test(kinds or KINDS, times)
    run = Run(made, times)
    run.run()
    report(run, found)
    if run.failed:
        print("== what failed")
        for text in Run.complaints:
            print(text)
    print(f"{run.passed} passed, {run.failed} failed")
    return 0 if run.passed and not run.failed else 1


if __name__ == "__main__":
    sys.exit(main())
