"""The metrics beside accuracy, one module each.

A metric is a function of outcomes: the stored predictions of networks on clean and attacked test images. A module
`METRIC.py` is the metric METRIC of experiment files, where `METRIC.ATTACK` names it under an attack and `METRIC.clean`
on clean images. It defines one of two functions, see `contract.Predictions`:

- `per_image(predictions)`: for a metric that is a mean over images: the values [S,N] in [0,1] of S networks on N images
  whose mean over the images it is.
- `measure(predictions, weights)`: for any other: the values [R,S] for R sets of images. `weights` [R,N] say how often
  each image counts in each set, as where images are resampled.

It may also define `support(predictions)`, the smallest number of images that a value can rest on where that is less
than N, and constants:

- `TITLE`: heading in tables. The name, if it is missing.
- `UNIT`: `percent` (the values are fractions, tables show them times 100) or `fraction` (tables show the values).
  `percent`, if it is missing.
- `HIGHER_IS_BETTER`: False if lower values are better. True, if it is missing.
- `NEEDS`: a tuple of those of `predicted`, `confidence` and `teacher` that it reads. Empty, if it is missing.

The first sentence of the module's docstring explains the metric below tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.registry import Registry

if TYPE_CHECKING:
    from robust_distillation.metrics.contract import Metric

__all__ = ["get", "names", "registry", "split"]

registry = Registry("metric", __name__, exclude=("accuracy", "contract"))
names = registry.names


def split(name: str) -> tuple[str, str]:
    """Splits the name of a metric into the kind of metric and the attack.

    Args:
        name: name in tables: `clean` or the name of an attack for the accuracy, else METRIC.ATTACK, such as
            `worst_class.autoattack`.

    Returns:
        (METRIC, ATTACK), such as ("worst_class", "autoattack"). For an accuracy METRIC is "", such as ("", "clean").
    """
    kind, dot, attack = name.partition(".")
    return (kind, attack) if dot else ("", kind)


def get(name: str) -> Metric:
    """Returns the metric of a name in tables, such as `clean`, `autoattack` or `worst_class.autoattack`.

    Args:
        name: `clean` or the name of an attack for the accuracy, else METRIC.ATTACK, where METRIC is `agreement`, `ece`,
            `mean`, `nsd`, `worst_class` or one that another package registers, and ATTACK is `clean` or the name of an
            attack.

    Returns:
        A `metrics.contract.Metric`, whose function `measure` computes the values from predictions. The attack's name is
        not checked.

    Raises:
        UserError: if METRIC is not registered, or if its module does not define what a metric must.
    """
    from robust_distillation.metrics import accuracy
    from robust_distillation.metrics.contract import Metric

    kind, attack = split(name)
    return Metric(name, kind, attack, registry.module(kind) if kind else accuracy)
