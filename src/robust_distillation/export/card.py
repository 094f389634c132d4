"""The model card: a README.md with a model's architecture, training, evaluation and use."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from robust_distillation import attacks, methods, metrics
from robust_distillation.columns import AUGMENTED, GROUP, METRIC, attack_of
from robust_distillation.files import read_table
from robust_distillation.registry import Registry
from robust_distillation.statistics.accuracies import summary

TEMPLATE = "model_card.md.jinja"
# Attack that selects the checkpoint "best", by the setting `selection.by`.
SELECTIONS = {
    "apgd": "{steps} steps of APGD-CE",
    "pgd10": "IAD's PGD (10 steps of 2/255)",
    "pgd_trades": "PGD_TRADES (20 steps of 0.003)",
}


def accuracies(outcomes: pd.DataFrame) -> list[dict[str, Any]]:
    """Computes the clean and robust accuracies of one checkpoint with 95 % confidence intervals, for the model card.

    An interval is about one trained network tested on other images of the same distribution: Student's t over the
    images, and never shorter than the exact binomial bound. It says nothing about training again with another seed.

    Args:
        outcomes: correctness of the predictions of one checkpoint of one trained network, one row per test image, as
            `evaluation.outcomes.read_outcomes` returns them. Columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean image), and
            one bool column per attack (True: the clean and the adversarial image are both classified correctly).

    Returns:
        One dict for each metric, `clean` first, then the attacks in the order of their columns. Its keys are `metric`
        (`clean` or the name of an attack), `images` (number of test images), `about` (text that describes the attack),
        `value` (accuracy in percent), `low` and `high` (ends of the interval in percent).
    """
    return [
        {
            "metric": row.metric, "images": row.n_images, "about": describe_attack(row.metric),
            "value": row.mean, "low": row.ci_low, "high": row.ci_high,
        }
        for row in summary(outcomes).itertuples()
    ]  # fmt: skip


def seed_statistics(table: Path, keys: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Reads the mean accuracies over seeds of one method's students (or of a teacher) from tables/main.csv.

    Args:
        table: path of the main table, for example results/digits/tables/main.csv, with the columns `teacher`,
            `student`, `method`, `checkpoint`, `metric`, `n_seeds`, `mean`, `ci_low` and `ci_high`. It may be missing.
        keys: the values of `teacher`, `student`, `method` and `checkpoint` of the rows to select, for example
            `{"teacher": "wide", "student": "small", "method": "rslad", "checkpoint": "best"}`; other keys are ignored.

    Returns:
        For each metric, such as `clean` or `pgd20`, a dict with `n_seeds` (number of seeds), `mean`, `ci_low` and
        `ci_high` (95 % confidence interval of the mean); the last three are in percent. Metrics of a single seed, which
        have no interval over seeds, are left out. Empty if the table does not exist.
    """
    if not table.is_file():
        return {}
    rows = read_table(table)
    for key in GROUP:
        rows = rows[rows[key].astype(str).eq(keys[key])]
    rows = rows[rows["n_seeds"].gt(1)].set_index(METRIC)
    return rows[["n_seeds", "mean", "ci_low", "ci_high"]].to_dict("index")


def selection(metadata: dict[str, Any]) -> str:
    """Describes how a checkpoint was selected, as a phrase for the model card.

    Args:
        metadata: metadata of the checkpoint, as `models.checkpoint.read_checkpoint` returns it. `checkpoint` ("best",
            "last" or "imported") is used. For "best" three more entries are used: `dataset.selects_on_test` (bool),
            `training.selection` (`by`: the attack `apgd`, `pgd10` or `pgd_trades`, or METRIC.ATTACK, and `steps`, the
            number of steps of apgd) and `epoch` (number of the epoch).

    Returns:
        A phrase that starts with a small letter and has no full stop, for example "the last epoch; nothing was chosen",
        or "the highest accuracy on the validation split under 10 steps of APGD-CE, ties by clean accuracy: epoch 18".
    """
    if metadata["checkpoint"] == "imported":
        return "as published; nothing was chosen here"
    if metadata["checkpoint"] == "last":
        return "the last epoch; nothing was chosen"
    split = "test" if metadata["dataset"]["selects_on_test"] else "validation"
    rule = metadata["training"]["selection"]
    metric, _, attack = rule["by"].rpartition(".")
    attack = SELECTIONS[attack].format(**rule)
    best = f"best {metrics.get(rule['by']).title}" if metric else "highest accuracy"
    return f"the {best} on the {split} split under {attack}, ties by clean accuracy: epoch {metadata['epoch']}"


def describe_attack(name: str) -> str:
    """Describes an attack for the model card by the first paragraph of the docstring of its module, on one line.

    Args:
        name: "clean" (the text is "no attack"), the name of a registered attack such as "pgd20", or "transfer_pgd20",
            which is pgd20 crafted on the surrogate, another network.

    Returns:
        Plain text on one line: "no attack" for "clean", else the paragraph. For an attack with the prefix `transfer_`,
        "Crafted on another network, the surrogate." is added, for `transfer_augmented_` a sentence on its gradient,
        too.

    Raises:
        UserError: there is no such attack.
    """
    if name == "clean":
        return "no attack"
    base = attack_of(name)
    crafted = "" if base == name else " Crafted on another network, the surrogate."
    if name.startswith(AUGMENTED):
        crafted += " Its gradient is averaged over transformed copies of each image."
    return f"{_summary(attacks.registry, base)}{crafted}"


def describe_method(name: str) -> str:
    """Describes a distillation or training method by the first paragraph of the docstring of its module, on one line.

    An example of the result is "RSLAD, robust soft label adversarial distillation (Zi et al., ICCV 2021), and the
    ablation of its soft labels."

    Args:
        name: name of a registered method, for example "rslad".

    Raises:
        UserError: there is no such method.
    """
    return _summary(methods.registry, name)


def _summary(registry: Registry, name: str) -> str:
    """Returns the first paragraph of the docstring of an entry's module, on one line."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or name).split("\n\n")[0].split())


def render(**values: Any) -> str:
    """Renders the model card (README.md of an exported model) from the template export/model_card.md.jinja, as
    Markdown.

    Args:
        values: the variables of the template, by name, for example `name`, `title`, `rows` (from `accuracies`) and
            `table` (from `seed_statistics`). `export.model.export_model` passes all of them.

    Returns:
        The Markdown text; no file is written. Nothing is escaped: the values of the variables are inserted as they are.

    Raises:
        jinja2.UndefinedError: a variable of the template is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robust_distillation", "export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    return environment.get_template(TEMPLATE).render(**values)
