"""Compares the robustness of students that are trained in each precision mode.

All students have the same teacher and cache, and are evaluated in the mode `exact`. A second comparison counts the
images on which AutoAttack succeeds in `exact` and fails if it searches in bfloat16, and the reverse.

    python benchmarks/modes.py params.yaml --seeds 5

The workflow makes the experiment's teacher and cache if they are missing. Results are printed as they come, one line of
JSON per student, then as tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from tabulate import tabulate

from robust_distillation.config import Experiment, Run, load
from robust_distillation.evaluation.attack import attack_run
from robust_distillation.evaluation.blocks import blocks
from robust_distillation.layout import Layout
from robust_distillation.pipeline.experiment_data import load_split, views_of
from robust_distillation.pipeline.teacher_source import open_teachers
from robust_distillation.training.run import build_trainer, train_to_files

MODES = {"exact": False, "fp32": True, "bf16-inner": True, "bf16": True}  # mode, and whether it is compiled
METHOD, ATTACK = "rslad", "autoattack"


def make_teacher(path: str, experiment: Experiment, teacher: str) -> None:
    """Makes a teacher and its cached logits by the workflow, if they are missing.

    Args:
        path: the experiment file.
        experiment: the experiment.
        teacher: name of the teacher.
    """
    wanted = [experiment.teacher_weights(teacher), Layout(experiment.name).cache(teacher, "logits")]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--config", f"experiment={path}"]
    subprocess.run([*command, "--", *map(str, wanted)], check=True)


def train_student(experiment: Experiment, run: Run, mode: str, folder: Path) -> None:
    """Trains a student in one precision mode.

    Args:
        experiment: the experiment.
        run: teacher, student, method and seed.
        mode: key of MODES.
        folder: folder for the checkpoints.
    """
    device, data = torch.device("cpu"), load_split(experiment, "train")
    recipe = experiment.recipes[run.method, run.student]
    settings = experiment.student_settings(run, recipe)
    method = recipe.method.settings
    views = experiment.view_set(recipe.training, run.seed)
    source = open_teachers(experiment, run.teacher, method, views, data, device)
    trainer = build_trainer(
        settings, recipe.training, method, experiment.threat_model, data, device, source.teachers,
        precision=mode, compiled=MODES[mode],
    )  # fmt: skip
    validation = load_split(experiment, "validation")
    train_to_files(folder, settings, trainer, data, validation, views_of(experiment, views), device, {})


def attack_outcomes(
    experiment: Experiment, folder: Path, images: int, precision: str = "exact", search: str = "fp32"
) -> tuple[np.ndarray, np.ndarray]:
    """Attacks the student's last checkpoint and returns two boolean arrays [images]: correct, and robust to AutoAttack.

    Args:
        experiment: the experiment.
        folder: folder of the student's checkpoints.
        images: number of test images.
        precision: of the network that classifies; see `Compute.precision`.
        search: precision of the network that is attacked, `fp32` or `bf16`.
    """
    todo = blocks(images, experiment.evaluation.block_size, experiment.evaluation.seed)
    outcomes = attack_run(
        {"last": folder / "last.safetensors"}, load_split(experiment, "test"), todo, [ATTACK], experiment.threat_model,
        torch.device("cpu"), precision=precision, search=search,
    )  # fmt: skip
    return (outcomes["label"] == outcomes["prediction"]).to_numpy(), outcomes[ATTACK].to_numpy()


def mean_and_sd(values: list[float]) -> str:
    """Formats mean ± standard deviation of fractions, in percent."""
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def difference(mode: list[float], exact: list[float]) -> str:
    """Formats the mean difference of accuracies with the half width of its 95 % interval, in percentage points.

    The interval is Student's t over the paired seeds.

    Args:
        mode: accuracy of each seed, a fraction.
        exact: accuracy of the same seeds in the mode `exact`.
    """
    differences = 100 * (np.array(mode) - np.array(exact))
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.2f} ± {half:.2f}"


def main() -> None:
    """Trains and attacks all students and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, help="test images to attack; the experiment's if left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = load(options.experiment)
    teacher, student = next(iter(experiment.teachers)), next(iter(experiment.students))
    images = options.images or experiment.test_images
    make_teacher(options.experiment, experiment, teacher)
    clean: dict[str, list[float]] = {mode: [] for mode in MODES}
    robust: dict[str, list[float]] = {mode: [] for mode in MODES}
    # For each seed, the images on which only the faster search succeeds, and those on which only `exact` does.
    searches = {"fp32": {"precision": "fp32"}, "bf16": {"search": "bf16"}}
    found: dict[str, list[int]] = {name: [] for name in searches}
    missed: dict[str, list[int]] = {name: [] for name in searches}
    for seed in range(options.seeds):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                train_student(experiment, Run(teacher, student, METHOD, seed), mode, Path(folder))
                correct, robust_correct = attack_outcomes(experiment, Path(folder), images)
                line = {"seed": seed, "mode": mode, "clean": correct.mean(), "robust": robust_correct.mean()}
                for name, options_of_search in searches.items() if mode == "exact" else ():
                    _, by_search = attack_outcomes(experiment, Path(folder), images, **options_of_search)
                    missed[name].append(int((by_search & ~robust_correct).sum()))
                    found[name].append(int((robust_correct & ~by_search).sum()))
                    line |= {f"missed in {name}": missed[name][-1], f"found in {name}": found[name][-1]}
            clean[mode].append(correct.mean())
            robust[mode].append(robust_correct.mean())
            print(json.dumps(line), flush=True)
    rows = [
        (
            f"`{mode}`", mean_and_sd(clean[mode]), mean_and_sd(robust[mode]),
            "" if mode == "exact" else difference(robust[mode], robust["exact"]),
        )
        for mode in MODES
    ]  # fmt: skip
    print(f"\n{experiment.name}: {METHOD}, {options.seeds} seeds, last checkpoint, {images} test images\n")
    print(tabulate(rows, ["mode", "clean", "AutoAttack", "difference from exact"], "github", disable_numparse=True))
    for name in searches:
        print(
            f"\nAutoAttack in {name} on the {options.seeds} `exact` students: of {options.seeds * images} "
            f"images it misses {sum(missed[name])} that the search in `exact` finds, and finds {sum(found[name])} that "
            "the search in `exact` misses."
        )


if __name__ == "__main__":
    main()
