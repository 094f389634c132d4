"""The model card: a README.md with a model's architecture, training, evaluation and use."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from robust_distillation import attacks, methods
from robust_distillation.columns import GROUP, METRIC, ON_SURROGATE
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
    """Computes the accuracies of one checkpoint with their 95 % intervals for other test images, as in the tables.

    outcomes: the outcomes of the checkpoint: one row for each test image.

    Returns:
        A dict for each metric, "clean" first, with the keys metric, images, about (a description of the attack), value,
        low and high. The last three are percentages.
    """
    return [
        {
            "metric": row.metric, "images": row.n_images, "about": describe_attack(row.metric),
            "value": row.mean, "low": row.ci_low, "high": row.ci_high,
        }
        for row in summary(outcomes).itertuples()
    ]  # fmt: skip


def seed_statistics(table: Path, keys: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Reads the mean accuracies over seeds from the main table.

    table: path of tables/main.csv. keys: the values of teacher, student, method and checkpoint to select.

    Returns:
        For each metric a dict with n_seeds, mean, ci_low and ci_high (the last three in percent). Metrics of a single
        seed, which have no interval, are left out. Empty if the table does not exist.
    """
    if not table.is_file():
        return {}
    rows = pd.read_csv(table)
    for key in GROUP:
        rows = rows[rows[key].astype(str).eq(keys[key])]
    rows = rows[rows["n_seeds"].gt(1)].set_index(METRIC)
    return rows[["n_seeds", "mean", "ci_low", "ci_high"]].to_dict("index")


def selection(metadata: dict[str, Any]) -> str:
    """Describes how a checkpoint was selected, in a phrase for the model card.

    metadata: the metadata of the checkpoint.
    """
    if metadata["checkpoint"] == "imported":
        return "as published; nothing was chosen here"
    if metadata["checkpoint"] == "last":
        return "the last epoch; nothing was chosen"
    split = "test" if metadata["dataset"]["selects_on_test"] else "validation"
    rule = metadata["training"]["selection"]
    attack = SELECTIONS[rule["by"]].format(**rule)
    return (
        f"the highest accuracy on the {split} split under {attack}, ties by clean accuracy: epoch {metadata['epoch']}"
    )


def describe_attack(name: str) -> str:
    """Describes an attack in one or two sentences. name: a metric, such as "clean", or a column of outcomes."""
    if name == "clean":
        return "no attack"
    base = name.removeprefix(ON_SURROGATE)
    crafted = "" if base == name else " Crafted on another network, the surrogate."
    return f"{_summary(attacks.registry, base)}{crafted}"


def describe_method(name: str) -> str:
    """Describes a registered method: the first paragraph of its module's docstring."""
    return _summary(methods.registry, name)


def _summary(registry: Registry, name: str) -> str:
    """Returns the first paragraph of the docstring of an entry's module, on one line."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or name).split("\n\n")[0].split())


def render(**values: Any) -> str:
    """Renders the model card as Markdown.

    values: the variables of the template model_card.md.jinja. A variable that is missing raises
    jinja2.UndefinedError.
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
