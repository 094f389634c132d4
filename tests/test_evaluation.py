"""Blocks, outcomes, statistics and tables; and that a third party finds what we stored."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY, fresh_tree
from pyautoattack import AutoAttack
from scipy import stats

from robust_distillation import attacks, load_dataset, load_model
from robust_distillation.attacks import apgd_ce_t
from robust_distillation.cli import main
from robust_distillation.columns import TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.data.dataset import load
from robust_distillation.digests import canonical
from robust_distillation.errors import UserError
from robust_distillation.evaluation.attack import attack_block, attack_run
from robust_distillation.evaluation.blocks import blocks, shard
from robust_distillation.evaluation.outcomes import merge, read_outcomes, write_outcomes
from robust_distillation.files import sha256
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.reporting import tables
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel
from robust_distillation.statistics.accuracies import accuracies, summary


def test_blocks_cover_the_images_once_and_seeds_differ():
    cut = blocks(25, 10, seed=0)
    assert [(block.start, block.stop) for block in cut] == [(0, 10), (10, 20), (20, 25)]
    assert len({block.seed for block in cut}) == 3
    assert cut == blocks(25, 10, seed=0)
    assert blocks(35, 10, seed=0)[:2] == cut[:2]  # more images leave the first blocks as they are
    assert blocks(25, 10, seed=1)[0].seed != cut[0].seed
    for jobs in (1, 2, 3):
        shares = [shard(cut, i, jobs) for i in range(1, jobs + 1)]
        assert sorted((block for share in shares for block in share), key=lambda block: block.number) == cut


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A student trained naturally for a moment: attacks break some images and not others."""
    model = build_model({"name": "convnet", "width": 4}, (1, 8, 8), 10, 1)
    images, labels = load_dataset("digits", "train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    torch.manual_seed(0)
    for _ in range(60):
        noisy = (images + 0.2 * torch.randn_like(images)).clamp(0, 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(noisy), labels).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("student") / "best.safetensors"
    info = load("digits", "test").info
    about = {"shape": list(info.shape), "classes": list(info.classes)}
    save_checkpoint(path, model.state_dict(), {"architecture": {"name": "convnet", "width": 4}, "dataset": about})
    return path


@pytest.mark.slow
def test_third_party_finds_the_stored_outcomes(checkpoint, tmp_path):
    """pyautoattack called directly on a recorded block with its recorded seed: the same verdict for every image; with
    another seed at most 2 % differ."""
    threat, data = ThreatModel(eps=0.1), load("digits", "test")
    paths = {"best": checkpoint}
    outcomes = attack_run(paths, data, blocks(120, 60, 0), ["autoattack"], threat, torch.device("cpu"))
    keys = {"teacher": "none", "student": "small", "method": "natural", "seed": 0}
    write_outcomes(tmp_path / "outcomes.parquet", outcomes.assign(**keys))

    stored = pd.read_parquet(tmp_path / "outcomes.parquet")
    model, (images, labels) = load_model(checkpoint), load_dataset("digits", "test")
    differing = 0
    for _, block in stored.groupby("block"):
        index, seed = torch.tensor(block["index"].to_numpy()), int(block["attack_seed"].iloc[0])
        x, y = images[index], labels[index]
        for own, chosen in ((True, seed), (False, seed + 1)):
            attack = AutoAttack(model, norm="Linf", eps=0.1, seed=chosen)
            adversarial, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
            robust_correct = ((model(x).argmax(1) == y) & (model(adversarial).argmax(1) == y)).numpy()
            if own:
                assert robust_correct.tolist() == block["autoattack"].tolist()
            else:
                differing += int((robust_correct != block["autoattack"]).sum())
    assert 0.1 < stored["autoattack"].mean() < 0.9
    assert differing <= 0.02 * len(stored)


@pytest.mark.slow
def test_autoattack_goes_on_from_its_first_two_stages(checkpoint, monkeypatch):
    """x' is bit by bit pyautoattack's, nothing is attacked twice, and after a kill between the two it is the same."""
    threat, data, [block] = ThreatModel(eps=0.1), load("digits", "test"), blocks(16, 16, 7)
    model, (x, labels) = load_model(checkpoint), (part[:16] for part in load_dataset("digits", "test"))
    reference = AutoAttack(model, norm="Linf", eps=0.1, seed=block.seed)
    whole, _ = reference.run_standard_evaluation(x, labels, batch_size=16)
    reference.attacks_to_run = ["apgd-ce", "apgd-t"]
    two, _ = reference.run_standard_evaluation(x, labels, batch_size=16)
    tier, standard = (attacks.registry.module(name).attack for name in ("apgd_ce_t", "autoattack"))
    assert torch.equal(tier(model, x, labels, threat, block.seed), two)
    assert torch.equal(standard(model, x, labels, threat, block.seed), whole)
    assert 0 < int((two == x).flatten(1).all(1).sum()) < 16

    stages, run = [], apgd_ce_t.run
    monkeypatch.setattr(apgd_ce_t, "run", lambda names, *arguments: stages.append(names) or run(names, *arguments))
    results: dict = {}
    names = ["apgd_ce_t", "autoattack"]
    found = attack_block(model, data, block, names, threat, torch.device("cpu"), results=results)
    assert stages == [("apgd-ce", "apgd-t"), ("fab-t", "square")]
    killed = {"apgd_ce_t": results["apgd_ce_t"]}
    again = attack_block(model, data, block, names, threat, torch.device("cpu"), results=killed)
    with torch.no_grad():
        left = (model(x).argmax(1) == labels) & (model(whole).argmax(1) == labels)
    assert found["autoattack"].tolist() == left.tolist() == again["autoattack"].tolist()
    assert (found["apgd_ce_t"] | ~found["autoattack"]).all()  # what AutoAttack leaves, its first stages leave


def test_predictions_and_confidences_are_those_of_the_attacked_images(checkpoint):
    """Softmax and class by other means; and outcomes that were saved as JSON after a kill give the same table."""
    threat, data, [block] = ThreatModel(eps=0.1), load("digits", "test"), blocks(40, 40, 3)
    model, (x, labels) = load_model(checkpoint), (part[:40] for part in load_dataset("digits", "test"))
    results: dict = {}
    found = attack_block(model, data, block, ["fgsm"], threat, torch.device("cpu"), results=results)
    assert list(found)[5:] == ["fgsm", "confidence", "fgsm.prediction", "fgsm.confidence"]
    x_adversarial = attacks.registry.module("fgsm").attack(model, x, labels, threat, block.seed)
    for images, prediction, confidence in ((x, "prediction", "confidence"), (x_adversarial, *list(found)[7:])):
        logits = model(images).double()
        best, classes = (logits - logits.logsumexp(1, keepdim=True)).exp().max(1)
        assert found[prediction].tolist() == classes.tolist()
        assert found[confidence].to_numpy() == pytest.approx(best.detach().numpy(), abs=1e-6)
        assert found[confidence].dtype == np.float32
    right = (found["prediction"] == found["label"]) & (found["fgsm.prediction"] == found["label"])
    assert right.tolist() == found["fgsm"].tolist()
    assert 0 < right.sum() < 40
    saved = json.loads(canonical(results))
    again = attack_block(model, data, block, ["fgsm"], threat, torch.device("cpu"), results=saved)
    pd.testing.assert_frame_equal(again, found)


@pytest.mark.slow
def test_outcomes_do_not_depend_on_the_number_of_jobs(tmp_path, monkeypatch, checkpoint):
    """The commands that the rules call, with one job and with three, on blocks of ten: the same bytes."""
    found = {}
    for jobs in (1, 3):
        tree = fresh_tree(tmp_path / str(jobs))
        text = TINY.replace("block_size: 10", f"block_size: 10, jobs: {jobs}")
        attacks = "attacks: [fgsm, pgd20, transfer_pgd20, transfer_augmented_pgd20, autoattack]"
        text = text.replace("attacks: [fgsm, pgd20]", f"{attacks}, surrogate: wide, model_augmentation: {{}}")
        (tree / "tiny.yaml").write_text(text)
        monkeypatch.chdir(tree)
        folder = tree / "results/tiny/students/none/small/natural/seed-0"
        folder.mkdir(parents=True)
        for name in ("best", "last"):
            (folder / f"{name}.safetensors").write_bytes(checkpoint.read_bytes())
        surrogate = tree / "results/tiny/teachers/wide/best.safetensors"
        surrogate.parent.mkdir(parents=True)
        surrogate.write_bytes(checkpoint.read_bytes())
        for command in (
            ["prepare-data"],
            *(
                ["attack", "none/small/natural/seed-0", *(["--shard", f"{i}-of-3"] if jobs == 3 else [])]
                for i in range(1, jobs + 1)
            ),
            *([["merge-outcomes", "none/small/natural/seed-0"]] if jobs == 3 else []),
        ):
            result = CliRunner().invoke(main, [*command, "--overlay", "tiny.yaml"])
            assert result.exit_code == 0, result.output
        found[jobs] = tree / "results/tiny/outcomes/students/none/small/natural/seed-0.parquet"
    assert sha256(found[1]) == sha256(found[3])
    outcomes = read_outcomes([found[3]])
    assert len(outcomes) == 2 * 24
    assert outcomes["block"].nunique() == 3


def frame(correct: dict[tuple, list[bool]]) -> pd.DataFrame:
    """Outcomes of (teacher, student, method, seed, checkpoint) to whether each image held; every prediction right."""
    names = ["teacher", "student", "method", "seed", "checkpoint"]
    parts = []
    for keys, values in correct.items():
        n = len(values)
        columns = {"index": range(n), "label": 0, "prediction": 0, "block": 0, "attack_seed": 7, "pgd20": values}
        parts.append(pd.DataFrame(columns).assign(**dict(zip(names, keys, strict=True))))
    return pd.concat(parts, ignore_index=True)


def test_shards_that_miss_or_repeat_images_are_refused(tmp_path):
    whole = frame({("t", "s", "m", 0, "best"): [True] * 6})
    write_outcomes(tmp_path / "1.parquet", whole[whole["index"] < 3])
    write_outcomes(tmp_path / "2.parquet", whole[whole["index"] >= 3])
    assert len(merge([tmp_path / "1.parquet", tmp_path / "2.parquet"])) == 6
    with pytest.raises(UserError, match="misses images or has some twice"):
        merge([tmp_path / "2.parquet"])
    with pytest.raises(UserError, match="misses images or has some twice"):
        merge([tmp_path / "1.parquet", tmp_path / "1.parquet", tmp_path / "2.parquet"])
    (tmp_path / "2.parquet").write_bytes((tmp_path / "2.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"2\.parquet: cannot be read"):
        merge([tmp_path / "1.parquet", tmp_path / "2.parquet"])


def test_summary_against_hand_computed_numbers():
    """Accuracies 50, 75 and 100 %: mean 75, sd 25; mean squares of seeds, images and rest 1/4, 11/36, 5/36."""
    values = ([True, True, False, False], [True, True, True, False], [True] * 4)
    outcomes = frame({("t", "s", "m", seed, "best"): correct for seed, correct in enumerate(values)})
    rows = summary(outcomes.sample(frac=1, random_state=0)).set_index("metric")
    row = rows.loc["pgd20"]
    assert (row["n_seeds"], row["n_images"], row["mean"], row["sd"]) == (3, 4, 75, 25)
    df = (15 / 36) ** 2 / ((1 / 4) ** 2 / 2 + (11 / 36) ** 2 / 3 + (5 / 36) ** 2 / 6)
    half = 100 * stats.t.ppf(0.975, df) * math.sqrt(15 / 36 / 12)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((75 - half, 100))
    exact = 100 * 0.025 ** (1 / 4)  # all held: the exact binomial bound of four images
    assert rows.loc["clean", ["mean", "ci_low", "ci_high"]].tolist() == pytest.approx([100, exact, 100])
    one = summary(outcomes[outcomes["seed"] == 1]).set_index("metric").loc["pgd20"]
    assert (one["mean"], one["n_seeds"]) == (75, 1)
    assert np.isnan(one["sd"])
    half = 100 * 3.182446305284263 * 0.5 / math.sqrt(4)  # t(0.975, 3), sd of 1, 1, 1, 0
    assert (one["ci_low"], one["ci_high"]) == pytest.approx((0, 100))  # half is 79.6


def test_seeds_on_other_images_are_refused():
    outcomes = frame({("t", "s", "m", 0, "best"): [True] * 4, ("t", "s", "m", 1, "best"): [True] * 3})
    with pytest.raises(UserError, match="not attacked on the same images"):
        summary(outcomes)


SPEC = TableSpec(
    "exp", "controlled", "linf eps 0.1", [Comparison("big", "small")], ["sat", "rslad"], ["best", "last"],
    ["clean", "pgd20"],
)  # fmt: skip


def example_outcomes() -> pd.DataFrame:
    runs = {("big", TEACHER_ROW, "trades", 0, "best"): [True, True, True, False]}
    for teacher, method, correct in (
        ("none", "sat", [True, False, False, False]),
        ("big", "rslad", [True, True, False, False]),
    ):
        for seed in (0, 1):
            for name in ("best", "last"):
                runs[teacher, "small", method, seed, name] = correct
    return frame(runs)


def test_tidy_table_has_one_row_per_number():
    table = tables.tidy(example_outcomes().sample(frac=1, random_state=0), SPEC)
    assert list(table.columns) == tables.COLUMNS
    keys = ["teacher", "student", "method", "checkpoint", "metric"]
    assert not table[keys].duplicated().any()
    assert len(table) == 2 + 2 * 2 * 2
    found = table.set_index(keys)["mean"]
    assert found["big", "-", "trades", "best", "pgd20"] == 75
    assert found["none", "small", "sat", "last", "pgd20"] == 25
    assert found["big", "small", "rslad", "best", "pgd20"] == 50
    assert set(table["n_images"]) == {4}
    assert table["published"].isna().all()


def test_tables_for_people_join_runs_without_a_teacher():
    table = tables.tidy(example_outcomes(), SPEC)
    text = tables.markdown(table, SPEC)
    assert (
        "exp: accuracy in percent on 4 test images, linf eps 0.1, controlled protocol; mean ± sd over 2 seeds" in text
    )
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    columns = ["Clean (best)", "PGD-20 (best)", "Clean (last)", "PGD-20 (last)", "PGD-20 (best less last)"]
    assert lines[0] == ["method", *columns]
    assert lines[1] == ["teacher (trades, best)", "100.00", "75.00", "", "", ""]
    assert lines[2][:3] == ["sat", "100.00 ± 0.00", "25.00 ± 0.00"]
    assert lines[3][:3] == ["rslad", "100.00 ± 0.00", "50.00 ± 0.00"]
    tex = tables.latex(table, SPEC)
    assert r"rslad & 100.00 $\pm$ 0.00 & 50.00 $\pm$ 0.00" in tex
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 1
    assert r"accuracy in percent" in tex


def test_headline_is_the_first_checkpoint_under_the_strongest_attack():
    found = tables.headline(tables.tidy(example_outcomes(), SPEC), SPEC)
    assert found["big", "small", "rslad"] == {"clean": 100.0, "pgd20": 50.0}
    assert found["none", "small", "sat"] == {"clean": 100.0, "pgd20": 25.0}
    assert found["big", "-", "trades"] == {"clean": 100.0, "pgd20": 75.0}


def test_accuracy_counts_an_image_only_if_right_before_and_after():
    outcomes = frame({("t", "s", "m", 0, "best"): [True, True, False, False]})
    outcomes["prediction"] = [0, 0, 0, 1]
    found = accuracies(outcomes).set_index("metric")["value"]
    assert found["clean"] == 75
    assert found["pgd20"] == 50
