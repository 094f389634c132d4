"""What a faster mode does to a student's robustness: the same students, of one teacher and its cache, trained in each
mode and judged alike, in `exact`; and what AutoAttack's search in bfloat16 misses of them.

    python benchmarks/modes.py params.yaml --seeds 5

The experiment's teacher and cache are made by the workflow where they are missing. Results are printed as they come, a
line of JSON for each student, then as tables.
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
from robust_distillation.pipeline.experiment_data import load_split, view_scheme
from robust_distillation.pipeline.teacher_source import open_teachers
from robust_distillation.training.run import build_trainer, train_to_files

MODES = {"exact": False, "fp32": True, "bf16-inner": True, "bf16": True}  # compiled where it may be
METHOD, ATTACK = "rslad", "autoattack"


def made(path: str, experiment: Experiment, teacher: str) -> None:
    """The teacher and its cached logits."""
    wanted = [experiment.teacher_weights(teacher), Layout(experiment.name).cache(teacher, "logits")]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--config", f"experiment={path}"]
    subprocess.run([*command, "--", *map(str, wanted)], check=True)


def trained(experiment: Experiment, run: Run, mode: str, folder: Path) -> None:
    device, data = torch.device("cpu"), load_split(experiment, "train")
    recipe = experiment.recipes[run.method, run.student]
    settings = experiment.student_settings(run, recipe)
    method = recipe.method.settings
    source = open_teachers(experiment, run.teacher, method, data, device)
    trainer = build_trainer(
        settings, recipe.training, method, experiment.threat_model, data, device, source.teachers,
        precision=mode, compiled=MODES[mode],
    )  # fmt: skip
    train_to_files(
        folder, settings, trainer, data, load_split(experiment, "validation"), view_scheme(experiment), device, {}
    )


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
    found = attack_run(
        {"last": folder / "last.safetensors"}, load_split(experiment, "test"), todo, [ATTACK], experiment.threat_model,
        torch.device("cpu"), precision=precision, search=search,
    )  # fmt: skip
    return (found["label"] == found["prediction"]).to_numpy(), found[ATTACK].to_numpy()


def spread(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def difference(mode: list[float], exact: list[float]) -> str:
    """Of the means, in points, with the half width of its 95 % interval by Student's t over the seeds, paired."""
    apart = 100 * (np.array(mode) - np.array(exact))
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return f"{apart.mean():+.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, help="test images to attack; the experiment's if left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = load(options.experiment)
    teacher, student = next(iter(experiment.teachers)), next(iter(experiment.students))
    images = options.images or experiment.test_images
    made(options.experiment, experiment, teacher)
    clean: dict[str, list[float]] = {mode: [] for mode in MODES}
    robust: dict[str, list[float]] = {mode: [] for mode in MODES}
    # By a faster search and not by that in `exact`, and the other way round, in each seed.
    searches = {"fp32": {"precision": "fp32"}, "bf16": {"search": "bf16"}}
    found: dict[str, list[int]] = {name: [] for name in searches}
    missed: dict[str, list[int]] = {name: [] for name in searches}
    for seed in range(options.seeds):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                trained(experiment, Run(teacher, student, METHOD, seed), mode, Path(folder))
                right, holds = attack_outcomes(experiment, Path(folder), images)
                line = {"seed": seed, "mode": mode, "clean": right.mean(), "robust": holds.mean()}
                for name, asked in searches.items() if mode == "exact" else ():
                    _, seen = attack_outcomes(experiment, Path(folder), images, **asked)
                    missed[name].append(int((seen & ~holds).sum()))
                    found[name].append(int((holds & ~seen).sum()))
                    line |= {f"missed in {name}": missed[name][-1], f"found in {name}": found[name][-1]}
            clean[mode].append(right.mean())
            robust[mode].append(holds.mean())
            print(json.dumps(line), flush=True)
    rows = [
        (
            f"`{mode}`", spread(clean[mode]), spread(robust[mode]),
            "" if mode == "exact" else difference(robust[mode], robust["exact"]),
        )
        for mode in MODES
    ]  # fmt: skip
    print(f"\n{experiment.name}: {METHOD}, {options.seeds} seeds, last checkpoint, {images} test images\n")
    print(tabulate(rows, ["mode", "clean", "AutoAttack", "difference from exact"], "github", disable_numparse=True))
    for name in searches:
        print(
            f"\nAutoAttack in {name} on the {options.seeds} `exact` students, judged in fp32: of "
            f"{options.seeds * images} images {sum(missed[name])} held that fall in `exact`, and {sum(found[name])} "
            "fell that hold there."
        )


if __name__ == "__main__":
    main()
