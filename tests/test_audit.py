"""Audit, recomputation and stories, on a versioned run; tampering by the hundred is `make tamper`."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from tampering import Tampering, everything, undone
from versioned import checkout, cloned, commit, run

from robust_distillation import config
from robust_distillation.audit.audit import audit, format_audit
from robust_distillation.cli import main
from robust_distillation.reporting.cells import cell_named, cells

PER_KIND = 4  # tamperings of each kind in `make test`


@pytest.fixture(scope="module")
def anchored(finished, tmp_path_factory) -> Path:
    """A finished run whose dvc.lock is committed."""
    tree = checkout(finished, tmp_path_factory.mktemp("anchored") / "tree")
    run(tree, "dvc", "repro")
    commit(tree, "The first run")
    return tree


@pytest.fixture
def here(anchored, monkeypatch) -> Path:
    monkeypatch.chdir(anchored)
    return anchored


def clean(tree: Path) -> None:
    result = audit(config.load("params.yaml"))
    assert not result.findings, format_audit(result, config.load("params.yaml"))
    assert result.commit


def caught(tampering: Tampering, folder: Path) -> str | None:
    """None where the audit finds and names it, else what went wrong."""
    with undone(tampering.touched, folder):
        tampering.apply()
        result = audit(config.load("params.yaml"))
    if not result.findings:
        return f"{tampering.name}: not seen"
    found = [f"{finding.place} {finding.problem}" for finding in result.findings]
    if not any(named in text for named in tampering.named for text in found):
        return f"{tampering.name}: not named, but {found[0]}"
    return None


def sample(found: list[Tampering]) -> list[Tampering]:
    """Some of each kind, spread over all of it."""
    chosen = []
    for kind in dict.fromkeys(tampering.kind for tampering in found):
        of = [tampering for tampering in found if tampering.kind == kind]
        chosen += of[:: max(1, len(of) // PER_KIND)][:PER_KIND]
    return chosen


def test_audit_of_a_clean_run_finds_nothing_and_tells_what_it_did(here):
    result = CliRunner().invoke(main, ["audit"])
    assert result.exit_code == 0, result.output
    assert "tiny: everything fits" in result.output
    assert "checked against the dvc.lock of commit" in result.output


def test_tampering_is_caught_and_named(here, tmp_path):
    found = sample(everything(config.load("params.yaml")))
    assert len({tampering.kind for tampering in found}) == 7
    assert [problem for tampering in found if (problem := caught(tampering, tmp_path))] == []
    clean(here)


def test_the_first_link_is_named_with_what_depends_on_it(here, tmp_path):
    weights = Path("results/tiny/students/wide/small/rslad/seed-0/best.safetensors")
    with undone((weights,), tmp_path):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        result = CliRunner().invoke(main, ["audit"])
    assert result.exit_code == 1
    first, *_ = result.output.split("nor does")
    assert f"DOES NOT FIT: {weights}" in first
    assert "step: train-student wide/small/rslad/seed-0" in first
    assert "outcomes/students/wide/small/rslad/seed-0.parquet" in first


def test_code_and_settings_that_changed_are_named(anchored, tmp_path):
    tree = Path(shutil.copytree(anchored, tmp_path / "tree", symlinks=True))
    method = tree / "src/robust_distillation/methods/rslad.py"
    text = method.read_text()
    method.write_text(text.replace("1 - self.alpha", "2 - self.alpha"))
    output = audited(tree)
    assert "DOES NOT FIT: results/tiny/tuning/wide/small/rslad" in output
    assert "code: is" in output
    method.write_text(text + "\n# A comment.\n")
    assert "everything fits" in audited(tree)
    method.write_text(text)
    experiment = tree / "params.yaml"
    experiment.write_text(experiment.read_text().replace("eps: 0.15", "eps: 0.2", 1))
    output = audited(tree)
    assert "settings: threat_model.eps is 0.15, not 0.2" in output
    assert "params.yaml" in output


def audited(tree: Path) -> str:
    from versioned import attempt

    result = attempt(tree, "robust-distillation", "audit")
    return result.stdout + result.stderr


def test_without_a_committed_lock_the_audit_says_so(finished, tmp_path, monkeypatch):
    tree = checkout(finished, tmp_path / "tree")
    monkeypatch.chdir(tree)
    result = audit(config.load("params.yaml"))
    assert not result.findings
    assert result.commit is None
    assert any(note.startswith("not checked against git") for note in result.notes)


def test_a_clone_without_the_cache_is_clean_and_says_what_it_did_not_check(anchored, tmp_path, monkeypatch):
    run(anchored, "dvc", "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
    run(anchored, "dvc", "push")
    clone = cloned(anchored, tmp_path / "clone")
    run(clone, "dvc", "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
    run(clone, "dvc", "pull")
    monkeypatch.chdir(clone)
    result = audit(config.load("params.yaml"))
    assert not result.findings, format_audit(result, config.load("params.yaml"))
    assert any("cache/wide/logits.npy: is not here" in note for note in result.notes)


def test_recomputed_cells_are_the_same_again(here):
    result = CliRunner().invoke(main, ["audit", "--recompute", "4", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert result.output.count("outcomes are the same again") == 4


def test_recomputing_finds_a_forgery_that_no_hash_shows(here, tmp_path):
    """Other outcomes than the checkpoint gives, with everything made again: attacking again sees it."""
    found = everything(config.load("params.yaml"))
    forgery = next(t for t in found if t.kind == "forgery" and "outcomes" in t.name and "parquet" in t.name)
    count = len(list(cells(config.load("params.yaml"))))
    with undone(forgery.touched, tmp_path):
        forgery.apply()
        result = CliRunner().invoke(main, ["audit", "--recompute", str(count), "--seed", "0"])
    assert result.exit_code == 1
    assert "DOES NOT FIT: wide/small/gacd" in result.output.split("recomputing")[1]


@pytest.mark.parametrize(
    "name", ["wide/small/rslad/best/pgd20", "wide/-/trades/best/clean", "none/small/natural/last/fgsm"]
)
def test_every_number_has_a_story(here, name):
    result = CliRunner().invoke(main, ["explain", name])
    assert result.exit_code == 0, result.output
    model = "teachers/wide" if "/-/" in name else f"students/{name.rsplit('/', 2)[0]}/seed-0"
    for expected in (name, f"outcomes/{model}.parquet", "sha256", "commit", "robust-distillation audit", "The data"):
        assert expected in result.output


def test_a_number_that_is_not_there_gets_the_nearest_name(here):
    result = CliRunner().invoke(main, ["explain", "wide/small/rslad/best/pgd"])
    assert result.exit_code == 2
    assert "Did you mean 'wide/small/rslad/best/pgd20'?" in result.output
    experiment = config.load("params.yaml")
    assert [str(cell_named(experiment, str(cell))) for cell in cells(experiment)] == list(map(str, cells(experiment)))


@pytest.mark.tamper
def test_campaign(here, tmp_path):
    """Every way of tampering, and twenty trees that are clean."""
    found = everything(config.load("params.yaml"))
    counted = Counter(tampering.kind for tampering in found)
    problems = [problem for tampering in found if (problem := caught(tampering, tmp_path))]
    clean(here)
    print(f"\n{len(found)} tamperings ({', '.join(f'{kind} {n}' for kind, n in counted.items())}): ", end="")
    print(f"{len(found) - len(problems)} caught and named")
    assert problems == []
    assert len(found) >= 200


@pytest.mark.tamper
def test_twenty_clean_trees_raise_no_alarm(anchored, tmp_path, monkeypatch):
    run(anchored, "dvc", "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
    run(anchored, "dvc", "push")
    for number, (what, change) in enumerate(HARMLESS.items()):
        if what.startswith("clone"):
            tree = cloned(anchored, tmp_path / str(number))
            run(tree, "dvc", "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
            run(tree, "dvc", "pull")
        else:
            tree = Path(shutil.copytree(anchored, tmp_path / str(number), symlinks=True))
        change(tree)
        output = audited(tree)
        assert "everything fits" in output, f"{what}: {output}"
        assert "checked against the dvc.lock" in output, f"{what}: {output}"
    print(f"\n{len(HARMLESS)} clean trees: no alarm")
    assert len(HARMLESS) >= 20


def _touch(tree: Path) -> None:
    for file in tree.rglob("*"):
        if file.is_file() and ".git" not in file.parts:
            os.utime(file, (1_700_000_000, 1_700_000_000))


def _append(name: str, text: str):
    def change(tree: Path) -> None:
        file = tree / name
        file.write_text(file.read_text() + text)

    return change


def _again(*command: str):
    return lambda tree: run(tree, *command)


def _remade(*command: str):
    """A step started by hand, what follows by Snakemake, then versioned again."""

    def change(tree: Path) -> None:
        run(tree, *command)
        run(tree, "dvc", "repro", "--force")
        commit(tree, "Made again")

    return change


HARMLESS = {
    "as it is": lambda tree: None,
    "new file times": _touch,
    "a comment in a method": _append("src/robust_distillation/methods/rslad.py", "\n# A comment.\n"),
    "a comment in an attack": _append("src/robust_distillation/attacks/fgsm.py", "\n# A comment.\n"),
    "a comment in the experiment file": _append("params.yaml", "\n# A comment.\n"),
    "a comment in a rule": _append("workflow/rules/steps.smk", "\n# A comment.\n"),
    "no cache": lambda tree: shutil.rmtree(tree / "results/tiny/cache"),
    "no logs": lambda tree: shutil.rmtree(tree / "results/tiny/logs"),
    "no .snakemake": lambda tree: shutil.rmtree(tree / ".snakemake"),
    "no DVC cache": lambda tree: shutil.rmtree(tree / ".dvc/cache"),
    "another commit since": lambda tree: ((tree / "more.txt").write_text("more"), commit(tree, "More")),
    "an untracked file beside": lambda tree: (tree / "notes.txt").write_text("notes"),
    "another experiment's folder": lambda tree: shutil.copytree(tree / "results/tiny", tree / "results/other"),
    "imported into MLflow again": _again("robust-distillation", "track"),
    "planned": _again("snakemake", "-n"),
    "dvc checkout": _again("dvc", "checkout", "--force"),
    "the table made again": _remade("robust-distillation", "tabulate"),
    "a student attacked again": _remade("robust-distillation", "attack", "wide/small/rslad/seed-0"),
    "the index made again": _remade("robust-distillation", "index"),
    "clone and pull": lambda tree: None,
    "clone, pull, new file times": _touch,
}
