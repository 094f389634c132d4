"""The named attacks, one module each.

A module `NAME.py` is the attack NAME of experiment files. It defines:

- `attack(model, x, labels, threat, seed)`: returns the adversarial images x', float32 [N,C,H,W]. `model` maps images
  [N,C,H,W] in [0,1] to logits [N,K], `x` are the clean images, `labels` their classes (int64 [N]), `threat` the norm
  and `eps`, and `seed` the seed of the attack's random numbers.
- `NORMS`: the norms for which the attack is defined, a tuple of `linf` and `l2`. Both, if it is missing.
- `CLASSES`: the smallest number of classes that the attack needs. 2, if it is missing.
- `AUGMENTABLE`: True if all that the attack does with the model is to move each image by the gradient of a sum over
  the images. Then it can be crafted on transformed copies (`transfer_augmented_NAME`, see `attacks.augmented`). False,
  if it is missing.
- `CONTINUES`: name of an attack whose x' it can go on from. Then `attack` has a further argument `start`: x' of that
  attack with the same other arguments, or None. Where an experiment has both, nothing is attacked twice.
"""

from __future__ import annotations

from robust_distillation.columns import attack_of
from robust_distillation.registry import Registry

__all__ = ["continued_by", "names", "registry"]

registry = Registry("attack", __name__, exclude=("core", "apgd", "augmented", "policy"), functions=("attack",))
names = registry.names


def continued_by(name: str) -> str | None:
    """Returns the name of the attack that an attack can go on from; None if there is none. Imports no attack.

    Args:
        name: name of the attack in an experiment file, such as `autoattack` or `transfer_autoattack`.
    """
    own = attack_of(name)
    continued = registry.constant(own, "CONTINUES", None)
    return continued and name.removesuffix(own) + continued
