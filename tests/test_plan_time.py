"""What `plan` says of time: the line through measured calls, the schedule, and the file that keeps a calibration."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

from robust_distillation.cli import main
from robust_distillation.config import Experiment, load
from robust_distillation.models import precision
from robust_distillation.pipeline.step import TABLES
from robust_distillation.pipeline.text import duration
from robust_distillation.planning import speed
from robust_distillation.planning.jobs import Job, jobs_of, makespan
from robust_distillation.planning.plan import COMPILED, describe
from robust_distillation.planning.speed import START, STARTS, TRAINING, Speed, Unknown, fit_line

# Graphs by hand


def graph(**needs: str) -> dict[str, Job]:
    return {name: Job(name, "attack", tuple(before.split())) for name, before in needs.items()}


def test_one_device_takes_one_job_after_the_other():
    jobs = graph(a="", b="a", c="", d="b c")
    assert makespan(jobs, {"a": 1, "b": 2, "c": 4, "d": 8}, 1) == 15


@pytest.mark.parametrize(("devices", "expected"), [(2, 1 + 5 + 8), (3, 5 + 8), (99, 5 + 8)])
def test_jobs_wait_for_those_they_need(devices, expected):
    """With two: a and b begin, c follows a; with more, c begins at once. d waits for all."""
    jobs = graph(a="", b="", c="", d="a b c")
    assert makespan(jobs, {"a": 1, "b": 4, "c": 5, "d": 8}, devices) == expected


def test_what_others_wait_for_goes_first():
    jobs = graph(a="", b="")
    jobs |= {"t": Job("t", "train-teacher", priority=100), "s": Job("s", "train-student", ("t",))}
    assert makespan(jobs, {"a": 3, "b": 3, "t": 3, "s": 3}, 2) == 6


def test_a_job_that_takes_more_devices_waits_for_them_and_takes_at_most_all():
    jobs = graph(a="") | {"t": Job("t", "attack", devices=4)}
    assert makespan(jobs, {"a": 2, "t": 3}, 4) == 5
    assert makespan(jobs, {"a": 2, "t": 3}, 5) == 3
    assert makespan(jobs, {"a": 2, "t": 3}, 1) == 5


def test_smaller_jobs_go_first_where_a_larger_one_does_not_fit_yet():
    """x takes one of two until 10; t needs both, y one of them from 1 to 6."""
    jobs = graph(r="", x="") | {"t": Job("t", "attack", ("r",), devices=2), "y": Job("y", "attack", ("r",))}
    assert makespan(jobs, {"r": 1, "x": 10, "t": 1, "y": 5}, 2) == 11


def test_tables_come_last_then_what_shows_them_then_the_index():
    jobs = jobs_of(load(REPOSITORY / "params.yaml"))
    assert not {name for name, job in jobs.items() if "index" in job.needs}
    assert {"track", "report"} <= set(jobs["index"].needs)
    made = {name for name, job in jobs.items() if job.step == TABLES} - {"track", "report", "index"}
    assert made <= set(jobs["track"].needs)
    assert {"tabulate", "compare"} <= set(jobs["report"].needs)


def test_no_number_of_devices_beats_the_longest_chain_and_none_is_worse_than_fewer():
    experiment = load(REPOSITORY / "params.yaml")
    jobs = jobs_of(experiment)
    seconds = {name: 1 + job.flops / 1e9 for name, job in jobs.items()}
    longest: dict[str, float] = {}
    for name, job in jobs.items():
        longest[name] = seconds[name] + max((longest[need] for need in job.needs), default=0)
    ends = [makespan(jobs, seconds, devices) for devices in (1, 2, 4, 8, len(jobs))]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(sum(seconds.values()))
    assert ends[-1] == pytest.approx(max(longest.values()))
    assert all(end >= sum(seconds.values()) / n - 1e-9 for end, n in zip(ends, (1, 2, 4, 8, len(jobs)), strict=True))


# Measuring


class Clock:
    """Time that passes only in the calls that are timed."""

    def __init__(self, once: float, call: float, image: float):
        self.now, self.asked = 0.0, []
        self.once, self.call, self.image = once, call, image

    def monotonic(self) -> float:
        return self.now

    def timed(self, images: int, calls: int) -> float:
        taken = self.once + calls * (self.call + self.image * images)
        self.now += taken
        self.asked.append((images, calls))
        return taken


@pytest.mark.parametrize("image", [1e-6, 1e-4, 1e-3])
def test_a_line_is_found_again_in_the_time_that_there_is(image, monkeypatch):
    """What is done but once, at the start of an attack, is in no call of it."""
    clock = Clock(once=5 * image, call=10 * image, image=image)
    monkeypatch.setattr(speed, "time", clock)
    assert fit_line(clock.timed, 2.0) == pytest.approx((10 * image, image))
    assert 2 <= clock.now < 4
    assert len({images for images, _ in clock.asked}) == 2


def test_calls_that_take_too_long_are_timed_on_few_images_alone_and_once(monkeypatch):
    clock = Clock(once=1.0, call=0.0, image=2.0)
    monkeypatch.setattr(speed, "time", clock)
    assert fit_line(clock.timed, 1.0) == (0.0, 2.0)
    assert clock.asked == [(speed.FEW, calls) for calls in (1, 2, 1, 2)]


def test_an_attack_that_finds_nothing_left_to_do_ends_the_measuring_too(monkeypatch):
    clock = Clock(once=0.001, call=0.0, image=0.0)
    monkeypatch.setattr(speed, "time", clock)
    assert fit_line(clock.timed, 2.0) == pytest.approx((0.0, 0.0))
    assert clock.now < 4


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Speed:
    experiment = load(REPOSITORY / "params.yaml")
    found = Speed(experiment, tmp_path_factory.mktemp("kept") / "speed.json")
    found.calibrate(jobs_of(experiment), seconds=0.5)
    return found


@pytest.mark.slow
def test_every_call_of_an_experiment_is_measured_and_kept(calibrated):
    jobs = jobs_of(calibrated.experiment)
    [known] = json.loads(calibrated.file.read_text()).values()
    asked = {(part.use, part.kind, part.network): part for job in jobs.values() for part in job.work}
    assert len(known) == len(asked) + len(STARTS)
    seconds = Speed(calibrated.experiment, calibrated.file).seconds(jobs)
    assert seconds.keys() == jobs.keys()
    assert all(took >= known[START] for took in seconds.values())
    own = known[calibrated._key(asked[max(asked)])]
    assert min(own) >= 0
    assert sum(own) > 0
    name, job = next((name, job) for name, job in jobs.items() if job.step == "train-teacher")
    lines = [(part.calls, known[calibrated._key(part)], part.images) for part in job.work]
    assert seconds[name] == pytest.approx(known[TRAINING] + sum(n * (a + b * images) for n, (a, b), images in lines))


@pytest.mark.slow
def test_another_network_another_machine_and_a_broken_file_are_not_known(calibrated, tmp_path):
    (tmp_path / "other.yaml").write_text("students: {small: {width: 9}}\n")
    other = load("params.yaml", str(tmp_path / "other.yaml"))
    with pytest.raises(Unknown):
        Speed(other, calibrated.file).seconds(jobs_of(other))
    elsewhere = Speed(calibrated.experiment, calibrated.file)
    elsewhere.machine = "another"
    with pytest.raises(Unknown):
        elsewhere.seconds(jobs_of(calibrated.experiment))
    [known] = json.loads(calibrated.file.read_text()).values()
    wrong = [dict.fromkeys(known, value) for value in ([1.0], None, "1", [1, "2"])] + [known | {START: None}]
    for text in ("", "[]", "{", *(json.dumps({calibrated.machine: kept}) for kept in (3, *wrong))):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(Unknown):
            Speed(calibrated.experiment, tmp_path / "broken.json").seconds(jobs_of(calibrated.experiment))


@pytest.mark.slow
def test_plan_prints_time_where_it_is_known(calibrated, tmp_path, monkeypatch):
    experiment, jobs = calibrated.experiment, jobs_of(calibrated.experiment)
    text = describe(experiment, speed=calibrated)
    assert f"Time, by what was measured on {calibrated.machine}" in text
    assert text.count("(this machine)") == 1
    assert "compiled" not in text
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


@pytest.mark.slow
def test_this_machine_is_told_of_even_where_it_could_run_more_at_once_than_there_are_jobs(calibrated, monkeypatch):
    monkeypatch.setattr(calibrated, "at_once", 1_000_000)
    assert "1000000 (this machine)" in describe(calibrated.experiment, speed=calibrated)


def test_jobs_run_at_once_on_the_cores_that_this_process_may_use():
    """As Snakemake counts them, by threads."""
    command = "import os; os.sched_setaffinity(0, {0}); from robust_distillation.config import load; "
    command += "from robust_distillation.planning.speed import Speed; print(Speed(load('params.yaml')).at_once)"
    done = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def with_changes(folder, text: str) -> Experiment:
    (folder / "changes.yaml").write_text(text)
    return load(str(REPOSITORY / "params.yaml"), str(folder / "changes.yaml"))


def uses(experiment: Experiment) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for job in jobs_of(experiment).values():
        found.setdefault(job.step, set()).update((part.use, part.kind) for part in job.work)
    return found


def test_what_runs_in_another_precision_is_measured_in_it(tmp_path):
    """Counts calls in bfloat16: all of a training but its validations and its teacher; attacks with a search in
    bfloat16; no analysis."""
    exact, low = uses(with_changes(tmp_path, "{}")), uses(with_changes(tmp_path, "evaluation: {search: bf16}"))
    assert exact["train-student"] == {
        ("train", "train"), ("train", "attack"), ("train", "ask"), ("answer", "apgd"), ("answer", "ask"),
    }  # fmt: skip
    assert {use for use, _ in exact["attack"]} == {"answer"}
    assert {use for use, _ in low["attack"]} == {"search"}
    assert {use for step in ("robustness", "structure", "transfer") for use, _ in low[step]} == {"answer"}


@pytest.mark.slow
def test_a_call_is_of_a_network_prepared_for_its_use(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(precision, "configure_precision", lambda model, *options: seen.append(options) or model)
    experiment = with_changes(tmp_path, "compute: {precision: bf16}")
    found = Speed(experiment, tmp_path / "speed.json")
    found.calibrate(jobs_of(experiment), seconds=0.01)
    assert {("bf16", "train"), ("bf16", "answer")} == set(seen)


def test_a_teacher_on_several_devices_has_its_steps_shared_and_its_looks_not(tmp_path):
    one, four = (
        next(job for job in jobs_of(with_changes(tmp_path, text)).values() if job.step == "train-teacher")
        for text in ("{}", "teachers: {wide: {devices: 4}}")
    )
    assert four.flops == pytest.approx(one.flops)
    for alone, shared in zip(one.work, four.work, strict=True):
        assert shared.calls == alone.calls
        assert shared.images == alone.images / (4 if alone.use == "train" else 1)


@pytest.mark.slow
def test_a_plan_says_that_compiled_trainings_are_not_measured(calibrated, tmp_path, monkeypatch):
    found = Speed(with_changes(tmp_path, "compute: {precision: fp32, compile: true}"))
    jobs = jobs_of(found.experiment)
    assert found.compiles(jobs)
    assert not Speed(with_changes(tmp_path, "compute: {precision: fp32}")).compiles(jobs)
    monkeypatch.setattr(calibrated, "compiles", lambda jobs: True)
    assert COMPILED in describe(calibrated.experiment, speed=calibrated)


@pytest.mark.slow
def test_a_calibration_asked_for_on_the_command_line_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Speed, "calibrate", functools.partialmethod(Speed.calibrate, seconds=0.1))
    first, second = (CliRunner().invoke(main, ["plan", *more]) for more in (["--calibrate"], []))
    assert first.exit_code == 0, first.output
    assert "(this machine)" in first.output
    assert second.output == first.output
    assert [file.name for file in tmp_path.rglob("*.*")] == ["speed.json"]
