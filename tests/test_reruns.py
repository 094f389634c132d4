"""Which steps run again after an edit, asked from the steps themselves; test_workflow.py asks Snakemake."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY, TINY, environment, fresh_tree
from test_docs import blocks

SOURCE = "src/robust_distillation"
TABLES = {"tabulate", "draw_figures", "compare", "track", "report_html", "index"}  # what follows from any new outcome
ENDS = TABLES | {"report_structure", "report_transfer parity"}  # and from any new student
JUDGED = {"compare", "draw_figures", "track", "report_html", "index"}  # the figures show the comparisons
CACHES = {"fill_cache wide/logits", "fill_cache wide/features"}
DATA = {"prepare_data", "prepare_target parity"}
NATURAL, RSLAD, GACD = TRAINED = (("none", "natural"), ("wide", "rslad"), ("wide", "gacd"))
MODELS = ["teachers/wide", *(f"students/{teacher}/small/{method}/seed-0" for teacher, method in TRAINED)]


def student(teacher: str, method: str, seed: int = 0) -> set[str]:
    """The jobs of a student: its training, attacks and analyses."""
    run = f"students/{teacher}/small/{method}/seed-{seed}"
    return {f"train_student {teacher}/small/{method}/{seed}"} | evaluated(run)


def evaluated(trained: str) -> set[str]:
    return {f"{step} {trained}" for step in ("attack", "structure", "robustness")} | {f"transfer parity/{trained}"}


def candidates(teacher: str, method: str, rates: tuple[float, ...] = (0.1, 0.2)) -> set[str]:
    return {f"tune {teacher}/small/{method}/learning_rate={rate}" for rate in rates}


def tuned(teacher: str, method: str) -> set[str]:
    return candidates(teacher, method) | {f"choose {teacher}/small/{method}", "report_tuning"}


def new(teacher: str, method: str) -> set[str]:
    """All that follows from a method, or from settings of one, that are new."""
    return tuned(teacher, method) | student(teacher, method) | ENDS


STUDENTS = set().union(*(student(*names) for names in TRAINED))
TUNED = set().union(*(tuned(*names) for names in TRAINED))
ALL = DATA | {"train_teacher wide"} | evaluated("teachers/wide") | CACHES | STUDENTS | TUNED | ENDS
CHOSEN = {f"choose {teacher}/small/{method}" for teacher, method in TRAINED}
TEACHERS = ALL - DATA - tuned(*NATURAL) - student(*NATURAL) | {"report_tuning"}


def source(file: str, old: str, text: str) -> tuple[str, str, str]:
    return f"{SOURCE}/{file}", old, text


def tiny(old: str, text: str) -> tuple[str, str, str]:
    return "tiny.yaml", old, text


def comments() -> list[tuple[str, str | None, str]]:
    """Comments, blank lines and longer docstrings in every module and in the experiment file."""
    edits = []
    for file in sorted((REPOSITORY / SOURCE).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if docstring := ast.get_docstring(ast.parse(text), clean=False):
            text = text.replace(docstring, f"{docstring} And more.", 1)
        text = text.replace("\n\n\n", "\n# A new comment.\n\n\n\n") + "\n# The last word.\n"
        edits.append((str(file.relative_to(REPOSITORY)), None, text))
    return [*edits, tiny("\nname: tiny", "\n# A comment.\nname: tiny")]


# What is edited, and what runs again.
EDITS = {
    "comments": (comments(), set()),
    "method": ([source("methods/rslad.py", "1 - self.alpha", "2 - self.alpha")], new(*RSLAD)),
    "teachers-method": ([source("methods/trades.py", "divergence=True", "divergence=False")], TEACHERS),
    "memory-bank": ([source("methods/contrast.py", "tiny = 1e-7", "tiny = 1e-6")], new(*GACD)),
    "attack": ([source("attacks/fgsm.py", "steps=1", "steps=2")], TABLES | {f"attack {name}" for name in MODELS}),
    "analysis": (  # one claim is about it
        [source("evaluation/structure.py", "DECIMALS = 6", "DECIMALS = 7")],
        {f"structure {name}" for name in MODELS} | {"report_structure"} | JUDGED,
    ),
    "figures": (
        [source("reporting/figures/trade_off.py", "students, closer", "students, enlarged")],
        {"draw_figures", "report_html", "track", "index"},
    ),
    "claim": ([tiny("rslad > natural on pgd20", "rslad > natural on pgd20 by 2")], JUDGED),
    "reference": ([tiny("\nname: tiny", "\ncompare_to: natural\nname: tiny")], JUDGED),
    "name-of-a-claim": ([tiny("rslad-natural: ", "again: ")], JUDGED),
    "verdicts": ([source("statistics/verdicts.py", "MOST_SEEDS = 1000", "MOST_SEEDS = 100")], JUDGED),
    "interval": ([source("statistics/intervals.py", "ALPHA = 0.05", "ALPHA = 0.1")], ENDS),
    "seed": (
        [tiny("seeds: [0]", "seeds: [0, 1]")],
        set().union(*(student(*names, seed=1) for names in TRAINED)) | ENDS,
    ),
    "new-method": ([tiny("methods: {sat: ~, ", "methods: {")], new("none", "sat")),
    "method-of-ones-own": (
        [
            (f"{SOURCE}/methods/half.py", None, blocks("own-method.md", "python")[0]),
            tiny("methods: {", "methods: {half: {alpha: 0.7}, "),
        ],
        new("wide", "half"),
    ),
    "settings-beside-others": (
        [tiny("methods: {", "methods: {rslad-half: {method: rslad, alpha: 0.5}, ")],
        new("wide", "rslad-half"),
    ),
    "value-of-a-method": ([tiny("negatives: 16", "negatives: 17")], new(*GACD)),
    "test-images-that-no-step-uses": ([tiny("validation: 40}", "validation: 40, test: 400}")], set()),
    "validation-images": ([tiny("validation: 40", "validation: 41")], ALL - DATA),
    "candidate": (
        [tiny("tuning: {", "tuning: {grid: {learning_rate: [0.1, 0.2, 0.4]}, ")],
        set().union(*(candidates(*names, rates=(0.4,)) for names in TRAINED))
        | CHOSEN
        | {"report_tuning"}
        | STUDENTS
        | ENDS,
    ),
    "short-run": ([tiny("tuning: {training: {epochs: 1", "tuning: {training: {epochs: 2")], TUNED | STUDENTS | ENDS),
    "choice": (
        [
            source(
                "training/tuning.py",
                "max((line for line in lines if SCORES[0] in line), key=rank)",
                "max([line for line in lines if SCORES[0] in line], key=rank)",
            )
        ],
        CHOSEN | {"report_tuning"} | STUDENTS | ENDS,
    ),
    "no-tuning": ([tiny("tuning: {training: {epochs: 1, milestones: []}}", "tuning: ~")], STUDENTS | ENDS),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, set[str]]:
    """By edit the jobs that run again, and under "" all jobs of the experiment."""
    tree = fresh_tree(tmp_path_factory.mktemp("reruns") / "tree")
    result = subprocess.run(
        [sys.executable, REPOSITORY / "tests/rerun_steps.py"],
        cwd=tree,
        env=environment(tree),
        input=json.dumps([edits for edits, _ in EDITS.values()]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(["", *EDITS], map(set, json.loads(result.stdout)), strict=True))


@pytest.mark.slow
def test_from_nothing_every_job_runs(answers):
    assert answers[""] == ALL


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_runs_what_depends_on_it_and_nothing_else(edit, answers):
    assert answers[edit] == EDITS[edit][1]


def test_attacks_in_shards_are_jobs_of_their_own_and_merged(tmp_path):
    tree = fresh_tree(tmp_path / "tree")
    (tree / "tiny.yaml").write_text(TINY.replace("block_size: 10", "block_size: 10, jobs: 3"))
    command = [sys.executable, REPOSITORY / "tests/rerun_steps.py"]
    result = subprocess.run(
        command, cwd=tree, env=environment(tree), input="[]", capture_output=True, text=True, check=True, timeout=300
    )
    [jobs] = json.loads(result.stdout)
    attacks = {job for job in jobs if job.startswith("attack ")}
    assert attacks == {f"attack {name}/{shard}-of-3" for name in MODELS for shard in (1, 2, 3)}
    assert {f"merge_outcomes {name}" for name in MODELS} <= set(jobs)


def test_the_example_of_a_method_is_short():
    assert len(blocks("own-method.md", "python")[0].splitlines()) <= 40
