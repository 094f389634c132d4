"""The progress lines: which job, how far, how long still."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_robust_distillation import LogHandler, Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text


def test_time_left_follows_from_the_jobs_that_ended():
    """Two at a time: one training ended after 10 s, one runs for 4 s, one is to come; an attack, unseen, counts as
    10 s too: (10 - 4) + 10 + 2 x 10 s of work, shared by two."""
    progress = Progress(total=5)
    progress.waiting.update({"train": 3, "attack": 2})
    progress.start(1, "train", now=0)
    progress.start(2, "train", now=6)
    assert progress.end(1, now=10) == ("train", 10)
    assert progress.done == 1
    assert progress.left(now=10) == pytest.approx((6 + 10 + 20) / 2)


def test_lines_name_the_job_and_errors_pass_through():
    handler = LogHandler(SimpleNamespace(), None)

    def line(message="", level=logging.INFO, **event):
        record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
        record.__dict__.update(event)
        return handler.text(record, now=handler.began + 5)

    jobs = {"attack": 1, "train_student": 1, "total": 3, "all": 1}
    assert line(event=LogEvent.RUN_INFO, stats=jobs) == "2 jobs: 1 attack, 1 train_student"
    assert line(event=LogEvent.JOB_INFO, jobid=4, rule_name="attack", wildcards={"trained": "teachers/wide"}) is None
    text = line(event=LogEvent.JOB_FINISHED, job_id=4)
    assert text.startswith("[1/2  50%] attack teachers/wide ")
    assert text.endswith("5 s gone, about 0 s left")
    assert line("Select jobs to execute...") is None
    assert line("Nothing to be done (all files are there).") == "Nothing to be done (all files are there)."
    assert line("The disk is full", logging.ERROR) == "The disk is full"
