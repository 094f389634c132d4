"""The tuning stage: what its file may say, that students use the best candidate on the validation split, and what runs
again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, TINY, planned, snakemake
from ruamel.yaml import YAML
from test_reruns import EDITS
from test_workflow import replace

from robust_distillation.cli import main
from robust_distillation.config import Experiment, load
from robust_distillation.config.experiment import FIRST_TUNING_SEED
from robust_distillation.config.tuning import Candidate, apply_candidate
from robust_distillation.errors import UserError
from robust_distillation.files import read_json, read_json_lines, sha256, write_json
from robust_distillation.layout import Layout
from robust_distillation.models.checkpoint import read_checkpoint, weights_digest
from robust_distillation.training.tuning import best_validation, choose

RATES = {"learning_rate": [0.1, 0.2]}
SHORT = {"epochs": 2, "milestones": []}
TRAINED = ("none/small/natural", "wide/small/rslad", "wide/small/gacd")
LAYOUT = Layout("tiny")


def experiment_with(folder: Path, tuning: Any, **changes: Any) -> Experiment:
    """params.yaml with another `tuning`."""
    yaml = YAML(typ="safe", pure=True)
    raw = yaml.load((REPOSITORY / "params.yaml").read_text(encoding="utf-8")) | {"tuning": tuning} | changes
    with open(folder / "experiment.yaml", "w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)
    return load(folder / "experiment.yaml")


# The experiment file


@pytest.mark.parametrize(
    ("tuning", "messages"),
    [
        (3, ["tuning: input should be a mapping, found 3"]),
        ({"gird": RATES}, ["tuning.gird: unknown key 'gird'. Did you mean 'grid'?"]),
        ({"grid": {"learning_rat": [1]}}, ["tuning.grid.learning_rat: unknown key", "Did you mean 'learning_rate'?"]),
        (
            {"grid": {"epochs": [1, 2], "selection": [1], "inner_attack": [1], "optimizer": [1]}},
            [f"tuning.grid.{key}: cannot be tuned: " for key in ("epochs", "selection", "inner_attack", "optimizer")],
        ),
        (
            {"grid": {"learning_rate": [0.1, -1, "x", None, [1], float("inf")]}},
            [
                "tuning.grid.learning_rate[1]: input should be greater than 0, found -1",
                "tuning.grid.learning_rate[2]: input should be a valid number, found 'x'",
                "tuning.grid.learning_rate[3]: input should be a number, a word, true or false, found nothing",
                "tuning.grid.learning_rate[4]: input should be a number, a word, true or false, found a list",
                "tuning.grid.learning_rate[5]: input should be a finite number",
            ],
        ),
        ({"grid": {"learning_rate": [1, 1.0]}}, ["tuning.grid.learning_rate: 1.0 is named twice"]),
        ({"grid": {"learning_rate": 0.1}}, ["tuning.grid.learning_rate: input should be a valid list, found 0.1"]),
        ({"grid": {"learning_rate": []}}, ["tuning.grid.learning_rate: is empty: give at least one"]),
        ({"grid": {"learning_rate": [0.1]}}, ["tuning: leaves nothing to choose"]),
        ({}, ["tuning: leaves nothing to choose"]),
        ({"grid": {"learning_rate": [i / 100 for i in range(1, 102)]}}, ["tuning: 101 candidates", "more than 100"]),
        (
            {"grid": RATES, "methods": {"trades": {"beta": [3, 6]}}},
            ["the same number of candidates, found 2: ard, gacd, iad, mart, natural, rslad, sat; 4: trades"],
        ),
        ({"grid": RATES, "methods": {"trads": {}}}, ["tuning.methods.trads: unknown method 'trads'", "'trades'?"]),
        (
            {"grid": RATES, "methods": {"trades": {"bta": [3, 6]}, "mart": {"beta": [5, -1]}}},
            [
                "tuning.methods.trades.bta: unknown key 'bta'. Did you mean 'beta'?",
                "tuning.methods.mart.beta[1]: input should be greater than or equal to 0, found -1",
            ],
        ),
        ({"grid": RATES, "training": {"epochs": 3}}, ["tuning.training.milestones: 17 is never reached in 3 epochs"]),
        ({"grid": RATES, "training": {"epoch": 3}}, ["tuning.training.epoch: unknown key", "Did you mean 'epochs'?"]),
        (
            {"grid": RATES, "training": {"learning_rate": 1.0}},
            ["tuning.training.learning_rate: is in the grid, too: leave one of them out"],
        ),
        ({"grid": RATES, "seed": -1}, ["tuning.seed: input should be greater than or equal to 0, found -1"]),
        (
            {
                "grid": {"learning_rate": [0.1, 0.2]},
                "methods": {
                    "rslad": {
                        "learning_rate": [0.1],
                        "clean_labels": ["hard"],
                        "adversarial_labels": ["hard"],
                        "inner_labels": ["teacher", "student"],
                    }
                },
            },
            ["clean_labels=hard,inner_labels=student: asks something else of the teacher"],
        ),
        (
            {"grid": {"batch_size": [64, 2000], "drop_last": [False, True]}},
            ["tuning: sat with batch_size=2000,drop_last=true: batch_size: 2000 is more than the 1000 training images"],
        ),
    ],
)
def test_mistakes_are_named_before_anything_runs(tuning, messages, tmp_path):
    with pytest.raises(UserError) as error:
        experiment_with(tmp_path, tuning)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{tmp_path / 'experiment.yaml'}: tuning") for line in lines)
    for message in messages:
        assert message in str(error.value)


def test_official_protocol_is_not_tuned(tmp_path):
    with pytest.raises(UserError, match="tuning: means nothing under the official protocol"):
        experiment_with(tmp_path, {"grid": RATES}, protocol="official")
    with pytest.raises(UserError, match=r"tables\.tuning: this name is kept"):
        experiment_with(tmp_path, {"grid": RATES}, tables={"tuning": {"title": "Mine"}})


def test_every_method_has_the_grid_or_its_own_of_the_same_size(tmp_path):
    tuning = {
        "training": SHORT,
        "grid": {"drop_last": [False], "learning_rate": [1, 0.5]},
        "methods": {"trades": {"beta": [3, 6], "learning_rate": [0.3]}},
    }
    experiment = experiment_with(tmp_path, tuning)
    rates = ["drop_last=false,learning_rate=1.0", "drop_last=false,learning_rate=0.5"]
    betas = [f"drop_last=false,learning_rate=0.3,beta={beta}" for beta in ("3.0", "6.0")]
    assert {name: list(found) for name, found in experiment.candidates.items()} == {
        name: betas if name == "trades" else rates for name in experiment.methods
    }
    short = experiment.tuning_recipe("small", "trades", betas[0])
    assert (short.training.epochs, short.training.learning_rate, short.method.settings.beta) == (2, 0.3, 3.0)
    full = apply_candidate(experiment.recipes["trades", "small"], experiment.candidates["trades"][betas[0]])
    assert (full.training.epochs, full.training.learning_rate, full.method.settings.beta) == (20, 0.3, 3.0)
    assert experiment.teachers["wide"].recipe.training.learning_rate == 0.1  # no teacher is tuned


def test_a_method_with_an_average_that_starts_late_has_one_in_its_short_runs_too(tmp_path):
    """Epoch 15 of 20 is epoch 1 of 2. What tuning.training says itself stays."""
    own = {"averaging": {"name": "swa", "start": 15}, "weight_perturbation": {"gamma": 0.01, "start": 10}}
    changes = {"methods": {"trades": {}, "trades-own": {"method": "trades", "training": own}}, "claims": {}}
    experiment = experiment_with(tmp_path, {"grid": RATES, "training": SHORT}, **changes)
    recipe, [first, _] = experiment.recipes["trades-own", "small"], experiment.candidates["trades-own"].values()
    short = apply_candidate(recipe, first, SHORT).training
    assert (short.averaging.start, short.weight_perturbation.start) == (1, 1)
    assert apply_candidate(recipe, first, SHORT | {"averaging": {"start": 0}}).training.averaging.start == 0
    full = apply_candidate(recipe, first).training
    assert (full.averaging.start, full.weight_perturbation.start) == (15, 10)
    plain = experiment.recipes["trades", "small"].training
    assert plain.averaging is None
    assert plain.weight_perturbation is None


def test_what_has_no_run_is_not_tuned_and_seeds_share_a_choice(tmp_path):
    students = {"small": {"architecture": "convnet"}, "large": {"architecture": "convnet"}}
    exclude = [{"student": "large", "method": ["sat", "ard"]}, {"student": "small", "method": "mart", "seed": [0, 1]}]
    experiment = experiment_with(tmp_path, {"grid": RATES}, students=students, exclude=exclude)
    assert len(experiment.tuned) == 2 * 8 - 2
    assert set(experiment.tuned) == {(run.teacher, run.student, run.method) for run in experiment.runs}
    assert ("none", "large", "natural") in experiment.tuned
    assert not experiment_with(tmp_path, None).tuned


def test_short_runs_share_no_seed_with_a_student(tmp_path):
    experiment = experiment_with(tmp_path, {"grid": RATES, "seed": 7})
    assert experiment.candidate_settings("small", "sat", "learning_rate=0.1")["seed"] == FIRST_TUNING_SEED + 7
    with pytest.raises(UserError, match=r"seeds\[0\]"):
        experiment_with(tmp_path, None, seeds=[FIRST_TUNING_SEED])


# The choice


def look(robust: float, clean: float = 0.5, epoch: int = 1) -> dict[str, float]:
    return {"epoch": epoch, "selection_clean": clean, "selection_robust": robust}


def test_the_highest_under_attack_is_chosen_then_the_highest_clean_then_the_first():
    assert choose({"a": [look(0.3, 0.9)], "b": [look(0.4, 0.1)]})[0] == "b"
    assert choose({"a": [look(0.4, 0.1)], "b": [look(0.4, 0.2)]})[0] == "b"
    assert choose({"a": [look(0.4)], "b": [look(0.4)]})[0] == "a"
    assert choose({"b": [look(0.4)], "a": [look(0.4)]})[0] == "b"  # the grid's order, not that of the names


def test_a_run_counts_by_its_best_validation():
    lines = [{"epoch": 1, "loss": 1.0}, look(0.4, 0.3, 2), look(0.4, 0.5, 3), look(0.4, 0.5, 4), look(0.1, 0.9, 5)]
    assert best_validation(lines) == look(0.4, 0.5, 3)
    chosen, scores = choose({"a": lines, "b": [look(0.3)]})
    assert (chosen, scores["a"]) == ("a", look(0.4, 0.5, 3))


def test_a_run_that_diverged_loses_whatever_it_reached():
    diverged = [look(0.9), {"epoch": 2, "diverged": True}]
    chosen, scores = choose({"a": diverged, "b": [look(0.1)]})
    assert chosen == "b"
    assert set(scores["a"].values()) == {None}
    with pytest.raises(UserError, match="all candidates diverged"):
        choose({"a": diverged, "b": diverged})


# Real runs


@pytest.fixture
def inside(tree, monkeypatch) -> Path:
    monkeypatch.chdir(tree)
    return tree


def run(*arguments: str, overlay: str = "tiny.yaml", code: int = 0) -> str:
    result = CliRunner().invoke(main, [*arguments, "--overlay", overlay])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_choice_and_table_say_what_the_short_runs_measured(finished):
    table = pd.read_csv(finished / LAYOUT.tables / "tuning.csv")
    assert len(table) == 6
    assert table["method"].unique().tolist() == ["natural", "rslad", "gacd"]
    for model in TRAINED:
        folder = finished / LAYOUT.candidates(*model.split("/"))
        rows = table[table["method"] == model.split("/")[2]].set_index("candidate")
        measured = {}
        for name, row in rows.iterrows():
            [line] = read_json_lines(folder / name / "metrics.jsonl")
            assert line["learning_rate"] == json.loads(row["settings"])["training"]["learning_rate"]
            measured[name] = (line["selection_robust"], line["selection_clean"])
            assert (row["selection_robust"], row["selection_clean"], row["epoch"]) == pytest.approx(
                (100 * measured[name][0], 100 * measured[name][1], 1), abs=1e-4
            )
            record = read_json(folder / name / "record.json")
            assert record["settings"]["seed"] == FIRST_TUNING_SEED
            assert record["settings"]["training"]["epochs"] == 1
        best = max(measured, key=measured.get)
        assert rows["chosen"].to_dict() == {name: name == best for name in rows.index}
        chosen = {"method": {}, "training": {"learning_rate": float(best.split("=")[1])}}
        keys = dict(zip(("teacher", "student", "method"), model.split("/"), strict=True))
        assert read_json(folder / "choice.json") == {**keys, "chosen": chosen}
        record = read_json(folder / "choice.record.json")
        assert len(record["inputs"]) == 2
        for file, known in (record["inputs"] | record["outputs"]).items():
            assert sha256(finished / file) == known
    text = (finished / LAYOUT.tables / "tuning.md").read_text()
    assert "on 40 validation images, linf eps 0.15, in one run of 1 epochs" in text
    assert text.count("| chosen") == 1 + 3
    assert len(read_json(finished / LAYOUT.record(LAYOUT.tables / "tuning.csv"))["outputs"]) == 3


def test_students_train_with_the_chosen_values(inside):
    """The same bytes as where the chosen learning rate is written into an experiment without a tuning stage."""
    choice = LAYOUT.choice("wide", "small", "rslad")
    keys = {"teacher": "wide", "student": "small", "method": "rslad"}
    write_json(choice, {**keys, "chosen": {"method": {}, "training": {"learning_rate": 0.2}}})
    folder = LAYOUT.student("wide", "small", "rslad", 0)
    before = read_json(folder / "record.json")["settings"]["training"]["learning_rate"]
    run("train-student", "wide/small/rslad/seed-0")
    tuned = {name: read_checkpoint(folder / f"{name}.safetensors") for name in ("best", "last")}
    record, curves = read_json(folder / "record.json"), (folder / "metrics.jsonl").read_bytes()
    for settings in (record["settings"], *(metadata for _, metadata in tuned.values())):
        assert (settings["training"]["learning_rate"], settings["training"]["epochs"]) == (0.2, 3)
    assert record["inputs"][str(choice)] == sha256(choice)
    assert all(metadata["hashes"] == record["inputs"] for _, metadata in tuned.values())

    plain = TINY.replace("training: {epochs: 3,", "training: {learning_rate: 0.2, epochs: 3,", 1)
    plain = plain.replace("tuning: {training: {epochs: 1, milestones: []}}", "tuning: ~")
    Path("plain.yaml").write_text(plain)
    run("train-student", "wide/small/rslad/seed-0", overlay="plain.yaml")
    assert (folder / "metrics.jsonl").read_bytes() == curves
    for name, (weights, _) in tuned.items():
        assert weights_digest(read_checkpoint(folder / f"{name}.safetensors")[0]) == weights_digest(weights)
    assert read_json(folder / "record.json")["settings"] == record["settings"]
    assert str(choice) not in read_json(folder / "record.json")["inputs"]
    assert before == 0.2 or json.loads(curves.splitlines()[0])["learning_rate"] != before


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"chosen": {"learning_rate": 0.2}}',
        {"chosen": {"method": {}, "training": {"learning_rate": 0.3}}},
        {"chosen": {"method": {"alpha": 1.0}, "training": {"learning_rate": 0.1}}},
        {"method": "gacd"},
        {"more": 1},
        None,
    ],
)
def test_a_choice_that_is_none_of_the_candidates_is_refused(content, inside):
    choice, folder = LAYOUT.choice("wide", "small", "rslad"), LAYOUT.student("wide", "small", "rslad", 0)
    if content is None:
        choice.unlink()
    else:
        text = content if isinstance(content, str) else json.dumps(read_json(choice) | content)
        choice.write_text(text)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    output = run("train-student", "wide/small/rslad/seed-0", code=2)
    assert str(choice) in output
    assert ("is not there yet" if content is None else "Remove it; the next start chooses again") in output
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_candidate_that_diverges_has_lost_and_stops_nothing(inside):
    Path("steep.yaml").write_text(TINY.replace("tuning: {", "tuning: {grid: {learning_rate: [1e30, 0.1]}, ", 1))
    run("tune", "none/small/natural", "learning_rate=1e+30", overlay="steep.yaml")
    folder = LAYOUT.candidates("none", "small", "natural")
    assert read_json_lines(folder / "learning_rate=1e+30" / "metrics.jsonl") == [{"epoch": 1, "diverged": True}]
    run("choose", "none/small/natural", overlay="steep.yaml")
    assert read_json(folder / "choice.json")["chosen"]["training"] == {"learning_rate": 0.1}
    [steep, _] = read_json(folder / "candidates.json")["candidates"]
    assert {steep[key] for key in ("epoch", "selection_clean", "selection_robust")} == {None}
    for model in TRAINED[1:]:  # for the table; nothing is trained again
        file = LAYOUT.candidates(*model.split("/")) / "candidates.json"
        assert file.is_file()
    run("report-tuning", overlay="steep.yaml")
    assert "| diverged |" in (LAYOUT.tables / "tuning.md").read_text()
    assert pd.read_csv(LAYOUT.tables / "tuning.csv")["selection_robust"].isna().sum() == 1


def test_names_on_the_command_line_are_looked_up(inside):
    assert "Did you mean 'wide/small/rslad'?" in run("choose", "wide/small/rslat", code=2)
    assert "Allowed: learning_rate=0.1, learning_rate=0.2" in run("tune", "wide/small/rslad", "0.3", code=2)
    Path("plain.yaml").write_text("name: tiny\ntuning: ~\n")
    for command in (["report-tuning"], ["choose", "wide/small/rslad"], ["tune", "wide/small/rslad", "x"]):
        assert "has no tuning stage" in run(*command, overlay="plain.yaml", code=2)


# What runs again


def test_students_do_not_train_again_where_the_choice_stayed(tree):
    edits, _ = EDITS["choice"]
    for name, old, new in edits:
        replace(tree / name, old, new)
    result = snakemake(tree, "--cores", "1", "--until", "choose")
    assert result.returncode == 0, result.stdout + result.stderr
    assert planned(tree) == {"report_html", "index"}  # they tell of the new records


def test_candidates_are_named_as_they_stand_in_paths():
    assert Candidate({"learning_rate": 0.05, "drop_last": True}, {"labels": "hard"}).name == (
        "learning_rate=0.05,drop_last=true,labels=hard"
    )
