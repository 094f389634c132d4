"""Broken experiment files and command lines: each gives one clear message before any job starts; nothing is written.

The files are those of bad_input/*.yaml. Each is read by `config.load`, by `plan` and by `check`; a few also by the real
`snakemake`.
"""

from __future__ import annotations

import copy
import datetime
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bad_input import VALID, Case, dumped, parsed, read_cases, write_params
from click.testing import CliRunner

from robust_distillation.cli import main
from robust_distillation.config import load
from robust_distillation.data import fashion_mnist
from robust_distillation.errors import UserError
from robust_distillation.planning.plan import describe

REPOSITORY = Path(__file__).resolve().parent.parent
FILE, OVERLAY = "broken.yaml", "overlay.yaml"
JARGON = "Traceback|NoneType|instance of|unicode string|ScalarNode|set_int_max|value error|object at 0x"

CASES = [pytest.param(case, id=name) for name, case in read_cases().items()]


# What every case is held to


class Expired(BaseException):
    """Passes through every `except Exception`."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails the test where it takes longer, which a message about a text file never does."""

    def expire(*_: Any) -> None:
        raise Expired

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Expired:
        # What was being handled may be as large as the file made it: pytest must not print it.
        raise pytest.fail.Exception(f"no answer after {seconds:g} s", pytrace=False) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, int | None]:
    """Every path under the folder, and the size of each file."""
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.is_file() else None for path in folder.rglob("*")
    }


def cut(text: str) -> str:
    return text if len(text) < 1500 else f"{text[:1500]}... ({len(text)} characters)"


def check_message(text: str, found: Case) -> None:
    """Short, without jargon, with all it must name."""
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= found.lines, f"{len(lines)} lines for one mistake: {cut(text)}"
    longest = max(map(len, lines))
    assert longest <= 500, f"a line of {longest} characters: {cut(text)}"
    for needle in found.says:
        alternatives = needle if isinstance(needle, list) else [needle]
        assert any(part in text for part in alternatives), f"{needle!r} is not in: {text}"
    jargon = re.search(JARGON, text)
    assert not jargon, f"{jargon[0]!r} says nothing to who wrote the file: {text}"
    assert text.replace("\n", "").isprintable(), f"control characters in {text!r}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def broken(request, folder) -> Case:
    """The case with its files written."""
    found: Case = request.param
    found.write(folder / FILE, folder / OVERLAY)
    return found


def test_params_file_that_all_cases_break_is_valid(folder):
    (folder / FILE).write_text(dumped(parsed()), encoding="utf-8")
    before = listing(folder)
    assert set(load(FILE).runs) == set(load(REPOSITORY / "params.yaml").runs)
    for command in ("plan", "check"):
        result = CliRunner().invoke(main, [command, "--experiment", FILE])
        assert result.exit_code == 0, result.output
    assert listing(folder) == before


@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_load_says_what_is_wrong(broken, folder):
    before = listing(folder)
    with within(broken.seconds), pytest.raises(UserError) as caught:
        load(FILE, OVERLAY if broken.overlay else None)
    check_message(str(caught.value), broken)
    assert re.match(rf"(experiment file )?({FILE}|{OVERLAY})", str(caught.value))
    assert listing(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_plan_and_check_exit_with_2(broken, folder):
    before = listing(folder)
    for command in ("plan", "check"):
        with within(broken.seconds):
            result = CliRunner().invoke(
                main, [command, "--experiment", FILE, *(["--overlay", OVERLAY] if broken.overlay else [])]
            )
        assert result.exit_code == 2, f"{command}: {result.exception!r} {cut(result.output)}"
        assert result.output.startswith("Error: ")
        check_message(result.output.removeprefix("Error: "), broken)
        assert listing(folder) == before


# Missing data


def with_dataset(**dataset: Any) -> dict[str, Any]:
    """Edits to the params: other images, without the transfer, which is of the digits."""
    return {"put": {"dataset": dataset}, "drop": ["transfer"]}


NOWHERE = with_dataset(name="fashion_mnist", folder="empty", download=False)


@pytest.fixture
def without_data(folder, monkeypatch) -> Path:
    """An experiment on images that are nowhere and may not be fetched."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder / "nowhere")
    write_params(folder / FILE, NOWHERE)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The addresses that were asked for, in torchvision's place; none answers."""
    asked = []

    def download_url(url: str, *_: Any, **__: Any) -> None:
        asked.append(url)
        raise OSError("no network")

    utils = SimpleNamespace(download_url=download_url)
    modules = {"": SimpleNamespace(), ".datasets": SimpleNamespace(utils=utils), ".datasets.utils": utils}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"torchvision{name}", module)
    return asked


def test_check_says_which_data_are_missing(without_data):
    before = listing(without_data)
    assert load(FILE).dataset.name == "fashion_mnist"  # the file itself is right
    result = CliRunner().invoke(main, ["check", "--experiment", FILE])
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    for needle in ("Error: dataset fashion_mnist: empty/FashionMNIST/raw/", "is missing", "dataset.download: true"):
        assert needle in result.output
    assert listing(without_data) == before


def test_prepare_data_fetches_nothing_that_may_not_be_fetched(without_data, downloads):
    before = listing(without_data)
    result = CliRunner().invoke(main, ["prepare-data", "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "is missing" in result.output
    assert downloads == []
    assert listing(without_data) == before


def test_prepare_data_asks_a_server_where_it_may_and_leaves_no_file_when_none_answers(without_data, downloads):
    write_params(without_data / FILE, with_dataset(name="fashion_mnist", folder="empty"))
    result = CliRunner().invoke(main, ["prepare-data", "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "could not be downloaded (no network)" in result.output
    assert downloads == [f"{fashion_mnist.FILES.url}train-images-idx3-ubyte.gz"]
    assert not [path for path in (without_data / "empty").rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", ["check", "prepare-data"])
def test_a_mirror_that_is_no_web_server_is_refused_before_any_job(command, without_data, downloads):
    mirror = "ftp://example.org/x"
    write_params(without_data / FILE, with_dataset(name="fashion_mnist", folder="empty", mirror=mirror))
    before = listing(without_data)
    result = CliRunner().invoke(main, [command, "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert result.output.startswith("Error: dataset.mirror: 'ftp://example.org/x' is not the address of a web server")
    assert result.output.count("\n") == 1
    assert downloads == []
    assert listing(without_data) == before


# Command lines

SHARD = "give it as I-of-N"
COMMANDS = {
    "run": ("train-student wide/small/rslat/seed-0", ["wide/small/rslat/seed-0", "mean 'wide/small/rslad/seed-0'?"]),
    "run-seed": ("train-student wide/small/rslad/seed-7", ["wide/small/rslad/seed-7", "Did you mean"]),
    "run-of-no-teacher": ("train-student wide/small/sat/seed-0", ["unknown run", "none/small/sat/seed-0"]),
    "run-climbs": ("train-student ../../x", ["unknown run", "'../../x'"]),
    "teacher": ("train-teacher wid", ["unknown teacher of experiment digits 'wid'", "Did you mean 'wide'?"]),
    "teacher-left-out": ("train-teacher", ["Missing argument 'TEACHER'"]),
    "cache-teacher": ("fill-cache wid logits", ["unknown teacher of experiment digits 'wid'", "Did you mean 'wide'?"]),
    "cache-kind": ("fill-cache wide logit", ["'logit'", "Did you mean 'logits'?"]),
    "attack-teacher": ("attack wid", ["'wid'", "Did you mean 'wide'?"]),
    "attack-run": ("attack wide/small/rslat/seed-0", ["Did you mean 'wide/small/rslad/seed-0'?"]),
    "merge-in-one-job": ("merge-outcomes wid", ["attacks each model in one job", "give evaluation.jobs more than 1"]),
    "transfer-target": ("transfer parit wide", ["unknown transfer", "Did you mean 'parity'?"]),
    "report-target": ("report-transfer parit", ["unknown transfer", "Did you mean 'parity'?"]),
    "prepare-target": ("prepare-target parit", ["unknown transfer", "Did you mean 'parity'?"]),
    "shard-above": ("attack wide --shard 3-of-2", ["--shard '3-of-2'", SHARD]),
    "shard-zero": ("attack wide --shard 0-of-2", ["--shard '0-of-2'", SHARD]),
    "shard-none": ("attack wide --shard 1-of-0", ["--shard '1-of-0'", SHARD]),
    "shard-half": ("attack wide --shard 1-of-", ["--shard '1-of-'", SHARD]),
    "shard-text": ("attack wide --shard ../x", ["--shard '../x'", SHARD]),
    "shard-negative": ("attack wide --shard=-1-of-2", ["--shard '-1-of-2'", SHARD]),
    "shard-empty": ("attack wide --shard ''", ["--shard ''", SHARD]),
    "command": ("plna", ["No such command 'plna'", "plan"]),
    "option": ("plan --experimnt params.yaml", ["--experimnt", "--experiment"]),
    "argument": ("plan params.yaml", ["unexpected extra argument", "params.yaml"]),
    "no-file": ("plan --experiment ''", ["experiment file", "cannot be read"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command_line_exits_with_2(name, folder):
    line, needles = COMMANDS[name]
    shutil.copy(REPOSITORY / "params.yaml", folder)
    before = listing(folder)
    with within(60):  # some import torch first
        result = CliRunner().invoke(main, shlex.split(line))
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "Traceback" not in result.output
    assert result.output.count("\n") <= 4  # click adds two lines on the usage
    for needle in needles:
        assert needle in result.output
    assert listing(folder) == before


@pytest.mark.parametrize("name", ["my experiment.yaml", "a;b.yaml", "it's.yaml", "$HOME.yaml"])
def test_path_of_the_experiment_survives_the_shell(name, folder):
    """The rules put `arguments` into their commands."""
    (folder / name).write_text(VALID, encoding="utf-8")
    result = subprocess.run(["bash", "-c", f"printf '%s\\n' {load(name).arguments}"], capture_output=True, text=True)
    assert result.stdout == f"--experiment\n{name}\n", result.stderr


# Any mistake whatever

VALUES = [
    *[None, True, False, 0, -1, 7, 10**30, 1.5, -0.5, 1e-300, float("inf"), float("nan"), "", "text", "8/255", "none"],
    *["best", "convnet", "\u00e9", "a b", [], [1, "a"], [[]], [None], {}, {"x": {}}, {"method": "sat"}, {1: 2}],
    *[datetime.date(2020, 1, 1), b"bytes"],
]
KEYS = ["x", "", "none", "method", "name", "seed", "training", 3, True, None, 1.5, "a/b"]
SNIPPETS = [
    *["[", "]", "{", "}", ":", ": ", "- ", ",", "&a ", "*a", "!!int ", "!!bool ", "!!float ", "!!set ", "!x ", "? "],
    *["\t", "\n", "\n---\n", "<<: ", "\x07", "\u00e9", "0x", *"|>#%~@` -9", '"', "'"],
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in a tree."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutated(rng: random.Random) -> str:
    """The valid params with one or two nodes replaced by a value of another type, deleted, or under another key."""
    raw = parsed()
    for _ in range(rng.choice([1, 1, 2])):
        holder, key = rng.choice(list(places(raw)))
        change = rng.choice(["replace", "replace", "delete", "rename"])
        if change == "replace":
            others = [value for value in VALUES if type(value) is not type(holder[key])]
            holder[key] = copy.deepcopy(rng.choice(others))
        elif change == "delete" or isinstance(holder, list):
            del holder[key]
        else:
            nearly = [f"{key}s", str(key)[:-1], str(key).upper()]
            holder[rng.choice(KEYS + nearly)] = holder.pop(key)
    return dumped(raw)


def scribbled(rng: random.Random) -> str:
    """The text of the valid params with a few edits that know nothing of YAML."""
    text = VALID
    for _ in range(rng.choice([1, 2, 3])):
        at = rng.randrange(len(text))
        change = rng.choice(["insert", "insert", "delete", "repeat"])
        if change == "insert":
            text = text[:at] + rng.choice(SNIPPETS) + text[at:]
        elif change == "delete":
            text = text[:at] + text[at + rng.choice([1, 1, 5, 40]) :]
        else:
            text = text[:at] + text[at : at + rng.choice([1, 10, 80])] + text[at:]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("change", [mutated, scribbled])
def test_any_file_is_either_planned_or_refused(change, folder):
    rng, faults, refused = random.Random(2021), [], 0
    for number in range(200):
        text = change(rng)
        (folder / FILE).write_text(text, encoding="utf-8")
        try:
            with within(30):  # for ever is a fault, slow is not
                describe(load(FILE))
        except UserError as error:
            refused += 1
            if not str(error).startswith((FILE, f"experiment file {FILE}")):
                faults.append(f"{number}: no file is named: {error}")
        except Exception as error:
            faults.append(f"{number}: {error!r}\n{text}")
    assert not faults, f"{len(faults)} of 200:\n" + "\n".join(faults[:3])
    assert 50 < refused < 200
    assert listing(folder).keys() == {FILE}


# The workflow


@pytest.fixture
def workflow(folder) -> Path:
    """What snakemake needs, beside an experiment file."""
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for name in ("workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "params.yaml", folder)
    return folder


def snakemake(folder: Path, *arguments: str, path: str = "") -> str:
    """What a start that must fail prints. Only Snakemake's own log may be left by it."""
    commands = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY / "src"), path])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(folder.parent / f"{folder.name}-cache"),
    }
    before = listing(folder)
    result = subprocess.run(
        [commands / "snakemake", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    output = result.stdout + result.stderr
    assert result.returncode != 0, cut(output)
    assert "Traceback" not in output
    assert "site-packages" not in output
    assert "src/robust_distillation" not in output, f"a frame of ours: {cut(output)}"
    after = {name: size for name, size in listing(folder).items() if not name.startswith(".snakemake")}
    assert after == before
    return output


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param({"put": {"protocol": "oficial"}}, ["protocol: unknown value 'oficial'"], id="value"),
        pytest.param(
            {"put": {"threat_model": {"norm": "l1", "eps": -1}}}, ["threat_model.norm:", "found -1"], id="two"
        ),
        pytest.param({"text": None}, ["cannot be read (No such file or directory)"], id="no-file"),
    ],
)
@pytest.mark.slow
def test_snakemake_says_it_once_and_starts_nothing(edit, expected, workflow):
    write_params(workflow / FILE, edit)
    with pytest.raises(UserError) as caught:
        load(FILE)
    output = snakemake(workflow, "-n", "--config", f"experiment={FILE}")
    assert output.count(str(caught.value)) == 1
    for needle in expected:
        assert output.count(needle) == 1
    assert "Job stats" not in output


@pytest.mark.slow
def test_snakemake_refuses_an_empty_experiment(workflow):
    assert "experiment" in snakemake(workflow, "-n", "--config", "experiment=")


@pytest.mark.slow
def test_snakemake_refuses_a_misspelt_config_key(workflow):
    write_params(workflow / FILE, {"put": {"protocol": "oficial"}})
    assert "experimnt" in snakemake(workflow, "-n", "--config", f"experimnt={FILE}")


@pytest.mark.slow
def test_snakemake_starts_no_job_where_data_are_missing(workflow):
    """A real run, which ends before its first job. Debian's package is hidden from it."""
    write_params(workflow / FILE, NOWHERE)
    (workflow / "hide").mkdir()
    (workflow / "hide" / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom robust_distillation.data import fashion_mnist\n"
        "fashion_mnist.DEBIAN = Path('nowhere')\n"
    )
    output = snakemake(workflow, "--config", f"experiment={FILE}", path=str(workflow / "hide"))
    assert output.count("dataset fashion_mnist: empty/FashionMNIST/raw/") == 1
    assert "rule prepare_data" not in output
