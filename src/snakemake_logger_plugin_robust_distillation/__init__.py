"""Progress in one line per finished job: which, how far, how long still. `snakemake --logger robust-distillation`."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import mean

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

SHOWN = ("Nothing to be done", "Complete log")  # of the messages that carry no event


@dataclass
class Progress:
    """What is known of a run, and what follows for its end."""

    waiting: Counter = field(default_factory=Counter)  # rule to jobs that have not ended
    running: dict[int, tuple[str, float]] = field(default_factory=dict)  # job to rule and start
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # rule to times of ended jobs
    total: int = 0
    parallel: int = 1

    def start(self, job: int, rule: str, now: float) -> None:
        self.running[job] = (rule, now)
        self.parallel = max(self.parallel, len(self.running))

    def end(self, job: int, now: float) -> tuple[str, float]:
        """The rule and the duration of the job that ended."""
        rule, started = self.running.pop(job)
        self.waiting[rule] -= 1
        self.seconds[rule].append(now - started)
        return rule, now - started

    @property
    def done(self) -> int:
        return self.total - sum(self.waiting.values())

    def left(self, now: float) -> float:
        """Seconds still, from the mean time of each rule's ended jobs; a rule not seen yet counts as the mean."""
        every = mean(second for seconds in self.seconds.values() for second in seconds)
        usual = {rule: mean(self.seconds[rule]) if self.seconds[rule] else every for rule in self.waiting}
        work = sum(count * usual[rule] for rule, count in self.waiting.items())
        work -= sum(min(now - started, usual[rule]) for rule, started in self.running.values())
        return work / self.parallel


class LogHandler(LogHandlerBase):
    """Prints the progress, and errors as Snakemake words them."""

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.names: dict[int, str] = {}
        self.began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.text(record, time.monotonic())
        except Exception:  # a log line must never stop a run
            self.handleError(record)
            return
        if text:
            print(text, file=sys.stderr, flush=True)

    def text(self, record: logging.LogRecord, now: float) -> str | None:
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
        if record.levelno >= logging.WARNING or (event is None and str(record.msg).startswith(SHOWN)):
            return self.format(record)
        return None

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return False

    @property
    def needs_rulegraph(self) -> bool:
        return False


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
