"""Projected gradient ascent: starting noise, gradient, step and projection, for any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cuda_graph import GraphReplay
from robust_distillation.device import to_device
from robust_distillation.errors import UserError
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel

TINY = 1e-12


def pgd(
    model: nn.Module,
    x: Tensor,
    objective: Callable[..., Tensor],
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    noise: Tensor | None = None,
    mode: str = "eval",
    project_start: bool = True,
    objective_args: tuple[Any, ...] = (),
    replay: GraphReplay | None = None,
) -> Tensor:
    """Maximises an objective over images by projected gradient ascent (Madry et al., 2018).

    Each step moves every image by `step_size` in the direction of steepest ascent of its objective and projects it onto
    the ball around its clean image and onto [0,1]. The last iterate is returned, not the best one.

    During the steps all parameters have `requires_grad` False and the model is in the mode `mode`. Modes and
    `requires_grad` are restored at the end, also after an exception. Buffers change only if `mode` is `train`.

    Args:
        model: network to attack; maps images [B,C,H,W] to logits [B,K].
        x: clean images in [0,1], [B,C,H,W].
        objective: function called as objective(x', logits, *objective_args) with the current images x' and the logits
            [B,K] of the model on x'. It returns one value per image, [B]; larger is a stronger attack.
        threat: norm (`linf` or `l2`) and radius `eps` of the ball around each clean image, in units of pixels in [0,1],
            such as 8/255.
        steps: number of gradient steps. With 0 the starting images are returned.
        step_size: length of a step in the norm of `threat`, in units of pixels in [0,1], such as 2/255.
        noise: tensor [B,C,H,W] added to x to get the starting images; None to start at x.
        mode: `eval`, or `train` as in some authors' released code. In train mode each step also moves the running
            statistics of batch norm.
        project_start: True to project the starting images onto the ball and [0,1]. False to take the first gradient at
            x + noise as it is, possibly outside of them.
        objective_args: further arguments of `objective`, such as `(labels,)`.
        replay: object that captures each step as a CUDA graph and replays it, to save the CPU time of starting each
            kernel. None: each step is called directly. In all calls of `pgd` with the same object, only the values of
            x, noise, objective_args and the weights may differ.

    Returns:
        Adversarial images x', [B,C,H,W], without gradient. They lie in the ball and in [0,1], unless `steps` is 0 and
        `project_start` is False.
    """

    def ascend(x: Tensor, adversarial: Tensor, *args: Any) -> Tensor:
        adversarial = adversarial.detach().requires_grad_(True)
        with torch.enable_grad():
            values = objective(adversarial, model(adversarial), *args).sum()
        [gradient] = torch.autograd.grad(values, [adversarial])
        return project(x, adversarial.detach() + step_size * direction(gradient, threat), threat)

    x = x.detach()
    call = replay or (lambda function, *args: function(*args))
    with frozen(model, mode):
        adversarial = x if noise is None else x + noise
        if project_start:
            adversarial = project(x, adversarial, threat)
        for _ in range(steps):
            adversarial = call(ascend, x, adversarial, *objective_args)
    return adversarial.clone()  # a replayed graph overwrites its result


def starting_noise(
    x: Tensor,
    threat: ThreatModel,
    start: str,
    generator: torch.Generator,
    noise_shard: tuple[slice, int] | None = None,
) -> Tensor:
    """Draws the noise that is added to clean images at the start of an attack.

    The numbers are drawn on the CPU, so that they do not depend on the device of x.

    Args:
        x: clean images, [B,C,H,W]. Only shape, dtype and device are used.
        threat: norm (`linf` or `l2`) and radius `eps` of the ball around each clean image, in units of pixels in [0,1],
            such as 8/255.
        start: `zero` for no noise, `uniform` for the uniform distribution in the ball, or `gaussian` for 0.001 times a
            standard normal number for each pixel, as in TRADES and RSLAD.
        generator: generator on the CPU. It advances, unless `start` is `zero`.
        noise_shard: None if x is a whole batch. If x is the part of a batch that one of several processes computes: the
            slice of the rows of x within the batch, and the number of images of the batch, such as (slice(0, 32), 64).
            The noise of the whole batch is drawn and the rows are selected, so that the noise of an image does not
            depend on the number of processes.

    Returns:
        Noise [B,C,H,W] on the device and in the dtype of x.
    """
    rows, total = noise_shard or (slice(None), len(x))
    shape = (total, *x.shape[1:])

    def there(draws: Tensor) -> Tensor:
        return to_device(draws[rows], x.device).to(x.dtype)

    if start == "zero":
        return torch.zeros_like(x)
    if start == "gaussian":
        return 0.001 * there(torch.randn(shape, generator=generator))
    if threat.norm == "linf":
        return threat.eps * (2 * there(torch.rand(shape, generator=generator)) - 1)
    # Uniform in the L2 ball: a uniform direction, and a radius whose n-th power is uniform.
    noise = there(torch.randn(shape, generator=generator))
    radius = there(torch.rand(total, generator=generator)) ** (1 / x[0].numel())
    return threat.eps * per_image(radius) * noise / per_image(l2_norm(noise))


def direction(gradient: Tensor, threat: ThreatModel) -> Tensor:
    """Computes the direction of steepest ascent for each image, with length 1 in the norm of the threat model.

    Args:
        gradient: gradients with respect to the images, [B,C,H,W].
        threat: the threat model; only `threat.norm` is used, which is `linf` or `l2`.

    Returns:
        The direction, [B,C,H,W]: for `linf` the sign of each entry; for `l2` the gradient divided by the L2 norm of the
        gradient of that image (by 1e-12, if the norm is smaller).
    """
    if threat.norm == "linf":
        return gradient.sign()
    return gradient / per_image(l2_norm(gradient))


def project(x: Tensor, adversarial: Tensor, threat: ThreatModel) -> Tensor:
    """Projects images onto the ball around the clean images and then onto [0,1].

    The second projection keeps an image in the ball, because the clean image lies in [0,1].

    Args:
        x: clean images in [0,1], [B,C,H,W].
        adversarial: images to project, [B,C,H,W].
        threat: norm (`linf` or `l2`) and radius `eps` of the ball around each clean image, in units of pixels in [0,1],
            such as 8/255.

    Returns:
        New images [B,C,H,W] in [0,1], each within `eps` of its clean image.
    """
    if threat.norm == "linf":
        return adversarial.maximum(x - threat.eps).minimum(x + threat.eps).clamp(0, 1)
    noise = adversarial - x
    return (x + noise * (threat.eps / per_image(l2_norm(noise))).clamp(max=1)).clamp(0, 1)


def l2_norm(x: Tensor) -> Tensor:
    """Computes the L2 norm of each image.

    Args:
        x: images or gradients, [B,C,H,W].

    Returns:
        The norms, [B]. Norms below 1e-12 are raised to 1e-12, so that the result can be a divisor.
    """
    return x.flatten(1).norm(dim=1).clamp(min=TINY)


def per_image(values: Tensor) -> Tensor:
    """Reshapes one number per image from [B] to [B,1,1,1], so that it can be multiplied with images [B,C,H,W].

    Args:
        values: tensor [B].

    Returns:
        View [B,1,1,1] of `values`.
    """
    return values[:, None, None, None]


def linf_pgd(
    name: str,
    model: nn.Module,
    x: Tensor,
    objective: Callable[..., Tensor],
    labels: Tensor,
    threat: ThreatModel,
    seed: int,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Attacks by PGD in the Linf ball from a uniform random start, with a step size in absolute units.

    This is for published attacks whose step size is a number of grey levels and not a fraction of `eps`. The model is
    in eval mode during the attack; its modes are restored.

    Args:
        name: name of the attack, such as `cw`. It is part of the error message and of the seed: attacks of different
            names start from different noise.
        model: network to attack; maps images [B,C,H,W] in [0,1] to logits [B,K].
        x: clean images in [0,1], [B,C,H,W].
        objective: function called as objective(x', logits, labels); returns one value per image, [B]. It is maximised.
        labels: true classes, int64 [B].
        threat: norm, which must be `linf`, and maximum size `eps` of the perturbation, in units of pixels in [0,1],
            such as 8/255.
        seed: seed of the random start.
        steps: number of gradient steps.
        step_size: change of each pixel in a step, in units of pixels in [0,1], such as 2/255.

    Returns:
        Adversarial images x', [B,C,H,W] in [0,1], each within `threat.eps` of its clean image.

    Raises:
        UserError: if the norm is not `linf`.
    """
    if threat.norm != "linf":
        raise UserError(
            f"attack {name!r} is defined in the linf ball only, not in {threat.norm}: use pgd20 or autoattack"
        )
    noise = starting_noise(x, threat, "uniform", generator(seed, name))
    return pgd(model, x, objective, threat, steps=steps, step_size=step_size, noise=noise, objective_args=(labels,))
