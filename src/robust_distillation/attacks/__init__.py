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
"""

from __future__ import annotations

from robust_distillation.registry import Registry

__all__ = ["names", "registry"]

registry = Registry("attack", __name__, exclude=("core", "apgd", "augmented", "policy"), functions=("attack",))
names = registry.names
