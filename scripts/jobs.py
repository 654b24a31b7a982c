# SPDX-License-Identifier: GPL-2.0
"""Jobs that wait for each other and run side by side, what they say, and what came of it.

A job begins when those that it comes after are done and a CPU is free; of several the one first from which it
takes longest to the end. How long each takes is known from the last time.
"""

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("MHS_CACHE") or HOME / "ip_vs_mhs")
# Seconds between two lines that say what is going on.
PULSE = 30


class Times:
    """How many seconds everything took last time, kept in the cache."""

    def __init__(self, path=CACHE / "test-times.json"):
        self.path = path
        try:
            self.known = json.loads(path.read_text())
        except (OSError, ValueError):
            self.known = {}
        self.new = {}

    def get(self, what, default):
        return self.known.get(what, default)

    def put(self, what, seconds):
        self.new[what] = round(seconds, 1)

    def save(self):
        """Another run may have saved more meanwhile."""
        known = Times(self.path).known | self.new
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        new.rename(self.path)


class Job:
    def __init__(self, name, work, after=(), seconds=5.0, cpus=1):
        """`work` is called with the job and says what came of it by result() and ktap(). While it runs it takes
        `cpus`; 0 is for what mostly waits."""
        self.name, self.work, self.after, self.cpus = name, work, list(after), cpus
        self.seconds = seconds
        self.state = "waits"
        self.began = self.ended = None
        # What it is doing, if it says.
        self.doing = ""
        self.passed = self.failed = 0
        # The job without which this one could not run.
        self.wants = None

    def say(self, text):
        with Run.lock:
            print(f"{self.name}: {text}" if text else "", flush=True)

    def result(self, good, text):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            Run.complain(f"not ok: {text}")
        with Run.lock:
            print(f"{'ok' if good else 'not ok'}: {text}", flush=True)
        return good

    def command(self, *words, out=None, env=None, cwd=TOP, line=None, quiet=False):
        """Runs a command and shows what it says; `line` is called with each line of its standard output, which
        also goes to the file `out`. Returns its status."""
        run = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )

        def errors():
            for text in run.stderr:
                self.say(text.rstrip("\n"))

        other = threading.Thread(target=errors)
        other.start()
        file = open(out, "w", encoding="utf-8") if out else None
        for text in run.stdout:
            if file:
                file.write(text)
                file.flush()
            if line:
                line(text.rstrip("\n"))
            if not quiet:
                self.say(text.rstrip("\n"))
        if file:
            file.close()
        other.join()
        return run.wait()

    def step(self, text, *words, **how):
        """Runs a command that is one result."""
        return self.result(self.command(*words, **how) == 0, text)

    def ktap(self, path, name):
        """Counts the results of a KTAP stream, and whether it has as many as it should."""
        good = bad = 0
        plan = None
        before = []
        for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("ok "):
                good += 1
            elif text.startswith("not ok "):
                bad += 1
                Run.complain(text)
            elif text.startswith("# got"):
                Run.complain(text)
            elif found := re.match(r"1\.\.(\d+)", text):
                plan = int(found[1])
            before.append(text)
        self.passed += good
        self.failed += bad
        return self.result(plan == good + bad > 0, f"{name}: every test reported")


class Run:
    """All jobs of one run."""

    lock = threading.RLock()
    complaints = []

    @classmethod
    def complain(cls, text):
        with cls.lock:
            cls.complaints.append(text)

    def __init__(self, jobs, times, cpus=None):
        self.jobs, self.times = jobs, times
        self.free = cpus or os.cpu_count()
        self.change = threading.Condition(Run.lock)
        named = {job.name: job for job in jobs}
        for job in jobs:
            job.after = [named[name] for name in job.after if name in named]
            job.seconds = times.get(job.name, job.seconds)
        # Those that come after a job are behind it in the list.
        for job in reversed(jobs):
            behind = [other.left for other in jobs if job in other.after]
            job.left = job.seconds + max(behind, default=0)

    def _ready(self):
        """The jobs that may begin, the most urgent one first."""
        ready = [job for job in self.jobs if job.state == "waits" and all(b.state == "over" for b in job.after)]
        return sorted(ready, key=lambda job: -job.left)

    def _work(self, job):
        try:
            wanted = next((other for other in job.after if other.failed or other.wants), None)
            if wanted:
                job.wants = wanted.wants or wanted
                job.result(False, f"{job.name}: cannot run, since {job.wants.name} failed")
            else:
                job.work(job)
        except Exception as error:  # Of a job that comes to no end nothing may be missed.
            job.result(False, f"{job.name}: {type(error).__name__}: {error}")
        with self.change:
            job.state, job.ended = "over", time.monotonic()
            self.free += job.cpus
            if not job.failed:
                self.times.put(job.name, job.ended - job.began)
            self.change.notify()

    def _pulse(self):
        at_work = [
            f"{job.name} {job.doing + ' ' if job.doing else ''}({time.monotonic() - job.began:.0f} s)"
            for job in self.jobs
            if job.state == "runs"
        ]
        waiting = sum(job.state == "waits" for job in self.jobs)
        print(f"== at work: {', '.join(at_work)}; {waiting} jobs wait", flush=True)

    def run(self):
        self.began = time.monotonic()
        pulse = self.began + PULSE
        with self.change:
            while any(job.state != "over" for job in self.jobs):
                for job in self._ready():
                    if job.cpus > self.free:
                        continue
                    job.state, job.began = "runs", time.monotonic()
                    self.free -= job.cpus
                    threading.Thread(target=self._work, args=(job,), daemon=True).start()
                self.change.wait(max(0.1, pulse - time.monotonic()))
                if time.monotonic() >= pulse:
                    self._pulse()
                    pulse += PULSE
        self.seconds = time.monotonic() - self.began
        self.times.save()

    @property
    def passed(self):
        return sum(job.passed for job in self.jobs)

    @property
    def failed(self):
        return sum(job.failed for job in self.jobs)
