"""Prints one line per finished Snakemake job: its name, the progress and the time left.

Used by `snakemake --logger robust-distillation`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import mean

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

PRINTED = ("Nothing to be done", "Complete log")  # beginnings of messages without an event that are printed


@dataclass
class Progress:
    """Counts the jobs of a Snakemake run and estimates the time left.

    Attributes:
        waiting: rule to the number of its jobs that have not ended.
        running: id of a job to its rule and start time.
        seconds: rule to the durations of its ended jobs.
        total: number of jobs of the run.
        parallel: largest number of jobs that ran at the same time.
    """

    waiting: Counter = field(default_factory=Counter)
    running: dict[int, tuple[str, float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    total: int = 0
    parallel: int = 1

    def start(self, job: int, rule: str, now: float) -> None:
        """Registers the start of a job.

        Args:
            job: id of the job.
            rule: its rule.
            now: present time in seconds, from any fixed moment.
        """
        self.running[job] = (rule, now)
        self.parallel = max(self.parallel, len(self.running))

    def end(self, job: int, now: float) -> tuple[str, float]:
        """Registers the end of a job and returns its rule and its duration in seconds."""
        rule, started = self.running.pop(job)
        self.waiting[rule] -= 1
        self.seconds[rule].append(now - started)
        return rule, now - started

    @property
    def done(self) -> int:
        """Number of jobs that ended."""
        return self.total - sum(self.waiting.values())

    def left(self, now: float) -> float:
        """Estimates the seconds until the run ends. At least one job must have ended.

        A job is expected to take as long as the mean of its rule's ended jobs, or of all ended jobs if its rule has
        none. The work left is divided by the largest number of jobs that ran at the same time.
        """
        overall = mean(second for seconds in self.seconds.values() for second in seconds)
        expected = {rule: mean(self.seconds[rule]) if self.seconds[rule] else overall for rule in self.waiting}
        work = sum(count * expected[rule] for rule, count in self.waiting.items())
        work -= sum(min(now - started, expected[rule]) for rule, started in self.running.values())
        return work / self.parallel


class LogHandler(LogHandlerBase):
    """Prints the progress to stderr, and passes warnings and errors of Snakemake through."""

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.names: dict[int, str] = {}
        self.began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the line for a log record of Snakemake, if it has one."""
        try:
            text = self.text(record, time.monotonic())
        except Exception:  # a log line must never stop a run
            self.handleError(record)
            return
        if text:
            print(text, file=sys.stderr, flush=True)

    def text(self, record: logging.LogRecord, now: float) -> str | None:
        """Makes the line for a log record of Snakemake.

        Args:
            record: the log record; Snakemake puts the fields of an event on it.
            now: present time in seconds, as of `time.monotonic`.

        Returns:
            The line. None if nothing is to be printed.
        """
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            jobs = {rule: count for rule, count in record.stats.items() if rule not in ("total", "all")}
            self.progress.waiting, self.progress.total = Counter(jobs), sum(jobs.values())
            return f"{self.progress.total} jobs: " + ", ".join(f"{count} {rule}" for rule, count in jobs.items())
        if event == LogEvent.JOB_INFO and record.rule_name in self.progress.waiting:
            self.progress.start(record.jobid, record.rule_name, now)
            self.names[record.jobid] = "/".join(str(value) for value in record.wildcards.values())
            return None
        if event == LogEvent.JOB_FINISHED and record.job_id in self.progress.running:
            rule, seconds = self.progress.end(record.job_id, now)
            progress = self.progress
            share = 100 * progress.done // max(progress.total, 1)
            still = f"about {duration(progress.left(now))} left" if progress.done < progress.total else "all done"
            name = f"{rule} {self.names[record.job_id]}".strip()
            head = f"[{progress.done:>{len(str(progress.total))}}/{progress.total} {share:3}%]"
            return f"{head} {name:<48} {duration(seconds):>8}   {duration(now - self.began)} gone, {still}"
        if record.levelno >= logging.WARNING or (event is None and str(record.msg).startswith(PRINTED)):
            return self.format(record)
        return None

    @property
    def writes_to_stream(self) -> bool:
        """Tells Snakemake that this handler prints to a stream, so Snakemake's own handler is off."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Tells Snakemake that this handler writes no file."""
        return False

    @property
    def has_filter(self) -> bool:
        """Tells Snakemake that this handler filters records, so Snakemake adds no filter."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Tells Snakemake that this handler has no formatter, so Snakemake adds its own."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """Tells Snakemake that this handler does not need the graph of rules."""
        return False


def duration(seconds: float) -> str:
    """Formats a duration: `59 s`, `1 min 01 s`, `2 h 01 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
