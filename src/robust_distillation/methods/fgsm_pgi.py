"""FGSM-PGI, adversarial training by one step from a prior-guided start (Jia et al., ECCV 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import EpochEnd, Method, Official, Sizes, Term, TrainingStep

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TINY = 1e-30  # below it a norm of gradients counts as 0


class FGSMPGI(Method):
    """FGSM-PGI: minimises CE(S(x'), y) + lambda/K ||S(x') - S(x + d)||^2, where x' is one step uphill on CE from x + d.

    S is the student, x a clean image, y the label, CE the cross-entropy, K the number of classes and eps the radius of
    the threat model. d is the start that belongs to the image; it comes from the epochs before and is kept in a table.
    s is the sign of the gradient g of CE(S(x + d), y) in the image, and P projects onto the ball of radius eps and onto
    images in [0,1]. Then x' = x + P(d + eps s). The next start of the image depends on `prior`:
        epoch: d <- P(d + eps s), the perturbation of this epoch (the paper's FGSM-EP);
        momentum: m <- g / ||g||_1 + mu m, d <- P(d + eps sign(m)) (FGSM-MEP, the default).
    ||g||_1 is the norm of the gradients of the whole batch. The first start is +eps or -eps in each pixel, with m = 0;
    after every `reset` epochs all images begin so again. Both outputs carry gradient, and both passes are in train
    mode.

    d belongs to an image and not to its crop: the view of the next epoch is another one, as in the authors' code. Of
    `training.inner_attack`, `eps` and `project_start` apply (false: x + d is not clamped to [0,1]); the other settings
    do not. The ball is that of linf, also if the threat model's norm is l2.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `smoothness`.
        prior: `momentum` or `epoch`, see above. `momentum` keeps two numbers for each pixel of the training images in
            the memory of the device, which is 1.2 GB for CIFAR-10; `epoch` keeps one.
        step_size: length of the step divided by eps, above 0; 1 in the authors' code.
        weight: lambda, at least 0; 10 in the authors' code.
        momentum: mu, in [0, 1); 0.3 in the authors' code. `prior: epoch` does not use it.
        reset: number of epochs after which the starts are drawn anew, at least 1; 40 in the authors' code for CIFAR-10.

    Unknown:
        - The paper's equations could not be read: `momentum` is what the authors' code does.
        - No code of FGSM-EP is known: `epoch` is `momentum` without momentum.
        - No code of the paper's FGSM-BP is known, which starts from the perturbations of the batch before: left out.
    """

    terms: ClassVar = ("cross_entropy", "smoothness")
    prior: Literal["momentum", "epoch"] = "momentum"
    step_size: float = Field(1.0, gt=0, description="length of the step divided by eps")
    weight: float = Field(10.0, ge=0, description="lambda")
    momentum: float = Field(0.3, ge=0, lt=1, description="mu")
    reset: int = Field(40, ge=1, description="epochs after which the starts are drawn anew")

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (jiaxiaojunQAQ/FGSM-PGI, FGSM_MEP.py and FGSM_MEP_cifar100.py) trains.

        With 100 `classes` the starts are drawn anew after 10 epochs (`reset`), else after 40. `architecture` is
        ignored. The target of the cross-entropy has 0.6 for the label and the rest in equal parts for the other
        classes, which is `label_smoothing` of 0.4 K / (K - 1) for K classes. Quirk of that code: x + d is not clamped
        to [0,1], although the view has changed since d was made (`project_start`). `best` is chosen on the test set at
        every epoch under PGD of 10 steps of 2/255; of equal epochs that code takes the last one.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 110,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 5e-4,
                "milestones": [100, 105],
                "label_smoothing": 0.4 * classes / (classes - 1),
                "inner_attack": {"steps": 1, "step_size": 8 / 255, "eps": 8 / 255, "project_start": False},
                "selection": {"by": "pgd10"},
            },
            settings={"reset": 10} if classes == 100 else {},
        )

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the module `starts`: an empty table with a row for each training image of `sizes`. `generator` is not
        used.
        """
        from robust_distillation.methods.table import ImageTable

        return {"starts": ImageTable(sizes.samples)}

    def after_epoch(self, end: EpochEnd) -> None:
        """Forgets all starts after every `reset` epochs (`end.epoch` is the number of the epoch that ended)."""
        if end.epoch % self.reset == 0:
            end.own["starts"].clear()

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; writes the next starts of its images.

        S is the student, x + d the start, x' the adversarial images, y their labels.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y), and `smoothness`, the mean over
            the classes of (S(x') - S(x + d))^2, of weight lambda.
        """
        start, d, m = step.once(lambda: self._start(step))
        before = step.student(start, train=True).logits
        x = step.once(lambda: self._search(step, start, before, d, m))
        after = step.student(x, train=True).logits
        return (
            Term("cross_entropy", cross_entropy(after, step.targets)),
            Term("smoothness", (after - before).square().mean(1), self.weight),
        )

    def _start(self, step: TrainingStep) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns x + d, which requires a gradient, d, and m, each [B,C,H,W]. m is None for `prior: epoch`."""
        eps, table = step.threat.eps, step.own["starts"]
        fresh = eps * (2 * step.uniform(*step.x.shape[1:]).to(step.x.dtype) - 1).sign()
        d = table.read("d", step.ids, fresh)
        m = table.read("m", step.ids, fresh.new_zeros(fresh.shape)) if self.prior == "momentum" else None
        start = (step.x + d).clamp(0, 1) if step.inner.project_start else step.x + d
        return start.requires_grad_(), d, m

    def _search(self, step: TrainingStep, start: Tensor, logits: Tensor, d: Tensor, m: Tensor | None) -> Tensor:
        """Makes x' [B,C,H,W] from the start and the student's logits there, and writes the next start of each image."""
        import torch

        eps = step.threat.eps
        [g] = torch.autograd.grad(cross_entropy(logits, step.targets).sum(), [start], retain_graph=True)

        def moved(direction: Tensor) -> Tensor:
            there = (d + self.step_size * eps * direction.sign()).clamp(-eps, eps)
            return there.maximum(-step.x).minimum(1 - step.x)

        used, rows = moved(g), {}
        if m is None:
            rows["d"] = used
        else:
            norm = step.gather(g.abs().flatten(1).sum(1)).sum().clamp(min=TINY)
            rows["m"] = g / norm + self.momentum * m
            rows["d"] = moved(rows["m"])
        step.own["starts"].write(step.gather(step.ids), **{name: step.gather(row) for name, row in rows.items()})
        return (step.x + used).detach()
