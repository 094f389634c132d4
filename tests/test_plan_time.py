"""What `plan` says of time: the line through measured calls, the schedule, and the file that keeps a calibration."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

from robust_distillation.cli import main
from robust_distillation.config import load
from robust_distillation.provenance.words import duration
from robust_distillation.reporting import speed
from robust_distillation.reporting.jobs import Job, finished, jobs_of
from robust_distillation.reporting.plan import describe
from robust_distillation.reporting.speed import START, Speed, Unknown, fitted

# Graphs by hand


def graph(**needs: str) -> dict[str, Job]:
    return {name: Job(name, "attack", tuple(before.split())) for name, before in needs.items()}


def test_one_device_takes_one_job_after_the_other():
    jobs = graph(a="", b="a", c="", d="b c")
    assert finished(jobs, {"a": 1, "b": 2, "c": 4, "d": 8}, 1) == 15


@pytest.mark.parametrize(("devices", "expected"), [(2, 1 + 5 + 8), (3, 5 + 8), (99, 5 + 8)])
def test_jobs_wait_for_those_they_need(devices, expected):
    """With two: a and b begin, c follows a; with more, c begins at once. d waits for all."""
    jobs = graph(a="", b="", c="", d="a b c")
    assert finished(jobs, {"a": 1, "b": 4, "c": 5, "d": 8}, devices) == expected


def test_what_others_wait_for_goes_first():
    jobs = graph(a="", b="")
    jobs |= {"t": Job("t", "train-teacher"), "s": Job("s", "train-student", ("t",))}
    assert finished(jobs, {"a": 3, "b": 3, "t": 3, "s": 3}, 2) == 6


def test_a_job_that_takes_more_devices_waits_for_them_and_takes_at_most_all():
    jobs = graph(a="") | {"t": Job("t", "attack", devices=4)}
    assert finished(jobs, {"a": 2, "t": 3}, 4) == 5
    assert finished(jobs, {"a": 2, "t": 3}, 5) == 3
    assert finished(jobs, {"a": 2, "t": 3}, 1) == 5


def test_no_number_of_devices_beats_the_longest_chain_and_none_is_worse_than_fewer():
    experiment = load(REPOSITORY / "params.yaml")
    jobs = jobs_of(experiment)
    seconds = {name: 1 + job.flops / 1e9 for name, job in jobs.items()}
    longest: dict[str, float] = {}
    for name, job in jobs.items():
        longest[name] = seconds[name] + max((longest[need] for need in job.needs), default=0)
    ends = [finished(jobs, seconds, devices) for devices in (1, 2, 4, 8, len(jobs))]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(sum(seconds.values()))
    assert ends[-1] == pytest.approx(max(longest.values()))
    assert all(end >= sum(seconds.values()) / n - 1e-9 for end, n in zip(ends, (1, 2, 4, 8, len(jobs)), strict=True))


# Measuring


def test_a_line_is_found_again():
    assert fitted(lambda images: 0.003 + 0.0002 * images, 0.05) == pytest.approx((0.003, 0.0002))


def test_calls_that_take_too_long_are_timed_on_few_images_alone():
    asked = []
    assert fitted(lambda images: asked.append(images) or 2.0 * images, 1.0) == (0.0, 2.0)
    assert set(asked) == {speed.FEW}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Speed:
    experiment = load(REPOSITORY / "params.yaml")
    found = Speed(experiment, tmp_path_factory.mktemp("kept") / "speed.json")
    found.calibrate(jobs_of(experiment), seconds=0.5)
    return found


def test_every_call_of_an_experiment_is_measured_and_kept(calibrated):
    jobs = jobs_of(calibrated.experiment)
    [known] = json.loads(calibrated.file.read_text()).values()
    asked = {(part.kind, part.network) for job in jobs.values() for part in job.work}
    assert len(known) == len(asked) + 1
    seconds = Speed(calibrated.experiment, calibrated.file).seconds(jobs)
    assert seconds.keys() == jobs.keys()
    assert all(took >= known[START] for took in seconds.values())
    kind, network = max(asked)
    own = known[calibrated._key(network, kind)]
    assert min(own) >= 0
    assert sum(own) > 0
    name, job = next((name, job) for name, job in jobs.items() if job.step == "train-teacher")
    lines = [(part.calls, known[calibrated._key(part.network, part.kind)], part.images) for part in job.work]
    assert seconds[name] == pytest.approx(known[START] + sum(n * (a + b * images) for n, (a, b), images in lines))


def test_another_network_another_machine_and_a_broken_file_are_not_known(calibrated, tmp_path):
    (tmp_path / "other.yaml").write_text("students: {small: {width: 9}}\n")
    other = load("params.yaml", str(tmp_path / "other.yaml"))
    with pytest.raises(Unknown):
        Speed(other, calibrated.file).seconds(jobs_of(other))
    elsewhere = Speed(calibrated.experiment, calibrated.file)
    elsewhere.machine = "another"
    with pytest.raises(Unknown):
        elsewhere.seconds(jobs_of(calibrated.experiment))
    for text in ("", "[]", "{", json.dumps({calibrated.machine: 3})):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(Unknown):
            Speed(calibrated.experiment, tmp_path / "broken.json").seconds(jobs_of(calibrated.experiment))


def test_plan_prints_time_where_it_is_known(calibrated, tmp_path, monkeypatch):
    experiment, jobs = calibrated.experiment, jobs_of(calibrated.experiment)
    text = describe(experiment, speed=calibrated)
    assert f"Time, by what was measured on {calibrated.machine}" in text
    rows = dict(re.findall(r"^(\d+|any number)(?: \(this machine\))? +(\d.* (?:s|min))$", text, re.MULTILINE))
    seconds = calibrated.seconds(jobs)
    one = sum(seconds.values())
    assert rows["1"] == duration(one)
    assert "any number" in rows
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["plan"])
    assert result.exit_code == 0, result.output
    assert "Time: --calibrate measures this machine" in result.output
    assert not list(tmp_path.iterdir())
