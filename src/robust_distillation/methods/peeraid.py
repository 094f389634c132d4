"""PeerAiD, adversarial distillation from a peer tutor (Jung et al., CVPR 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep


class PeerAiD(Method):
    """PeerAiD: minimises L_peer + L_student, where x' maximises KL(P(x) || S(x')).

    S is the student, P the peer, x a clean image, x' an adversarial image within the threat model around x, y the
    label, CE the cross-entropy, KL the divergence of the softmaxes, t and r two temperatures; ^t means softmax(logits /
    t). The peer has the architecture of the student and fresh weights. Both are trained together, with the same
    optimiser and schedule; no teacher is needed. P learns to resist the attacks on S, not those on itself. P(x) in the
    objective of x' is computed in eval mode. The two losses are

    - L_peer = gamma1 CE(P(x'), y) + gamma2 r^2 KL(S^r(x') || P^r(x')),
    - L_student = lambda1 CE(S(x'), y) + lambda2 t^2 KL(P^t(x') || S^t(x')) + lambda3 t^2 KL(S^t(x) || S^t(x')).

    P^t(x') is a constant in L_student and, unless `detach_target` is False, S^r(x') is one in L_peer. S^t(x) carries
    gradient. The defaults are those of the authors' script for CIFAR-10. There the divergences are averaged over the
    classes (`kl_scale: mean`).

    Attributes:
        terms: class constant: the loss terms, `peer_cross_entropy`, `peer_divergence`, `cross_entropy`, `divergence`
            and `consistency`, in the order of the formulas.
        gamma1: weight of the peer's cross-entropy, at least 0.
        gamma2: weight of the peer's divergence from the student, at least 0.
        lambda1: weight of the student's cross-entropy, at least 0.
        lambda2: weight of the student's divergence from the peer, at least 0.
        lambda3: weight of the student's divergence from its own prediction on x, at least 0.
        temperature: t of the student's divergences, above 0.
        peer_temperature: r of the peer's divergence, above 0.
        detach_target: True: S^r(x') is a constant in L_peer, so that this loss trains the peer alone. False: its
            gradient also flows into the student, as in the authors' code.
        repeat_pass: True: x' goes through S twice, as in the authors' code, so that batch norm's running statistics see
            it twice.
    """

    terms: ClassVar = ("peer_cross_entropy", "peer_divergence", "cross_entropy", "divergence", "consistency")
    gamma1: float = Field(1.0, ge=0)
    gamma2: float = Field(0.1, ge=0)
    lambda1: float = Field(0.0, ge=0)
    lambda2: float = Field(1.0, ge=0)
    lambda3: float = Field(1.0, ge=0)
    temperature: float = Field(5.0, gt=0)
    peer_temperature: float = Field(1.0, gt=0)
    detach_target: bool = Field(
        True, description="false, as in the authors' code: the peer's divergence has a gradient in the student, too"
    )
    repeat_pass: bool = Field(
        False, description="x' goes through S twice, as in the authors' code: batch norm's statistics see it twice"
    )

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architecture of the peer, which is that of the student: {"peer": `student`}."""
        return {"peer": student}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (jaewonalive/PeerAiD) trains.

        `classes`, the number of classes, chooses the dataset: 200 classes have the settings of Tiny-ImageNet, 100 those
        of CIFAR-100, all others those of CIFAR-10. `architecture` is ignored: the scripts for ResNet-18 and WRN-34-10
        have the same settings. Quirks of that code: the divergences are averaged over batch and classes, the
        cross-entropies over the batch (kl_scale); the student's logits are not detached where they are the peer's
        target (detach_target); S(x') is computed twice (repeat_pass); the attack starts from 0.001 N(0,1), which is not
        clamped. From the first milestone on the student's weights are averaged after each epoch (SWA), and batch norm's
        statistics of the average are estimated on the clean training images. `best` is chosen on the test set at every
        epoch, under PGD of 10 steps of 2/255. That code keeps a best student and a best average; here the average takes
        the student's place once it begins, and there is one `best`.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        tiny = {"gamma2": 100.0, "lambda1": 0.035, "lambda2": 35.0, "lambda3": 20.0, "temperature": 1.0}
        settings = {100: {"gamma2": 1.0}, 200: tiny}.get(classes, {})
        milestones = [99, 149] if classes == 200 else [214, 259, 284]
        return Official(
            training={
                "epochs": 200 if classes == 200 else 300,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": milestones,
                "kl_scale": "mean",
                "averaging": {"name": "swa", "start": milestones[0]},
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd10"},
            },
            settings={"detach_target": False, "repeat_pass": True, **settings},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, P the peer, x the clean and x' the adversarial images, t and r the temperatures.

        Returns:
            Terms with values [B] that are not reduced: `peer_cross_entropy`, CE(P(x'), y) of weight gamma1;
            `peer_divergence`, r^2 KL(S^r(x') || P^r(x')) of weight gamma2; `cross_entropy`, CE(S(x'), y) of weight
            lambda1; `divergence`, t^2 KL(P^t(x') || S^t(x')) of weight lambda2; and `consistency`, t^2 KL(S^t(x) ||
            S^t(x')) of weight lambda3.
        """
        peer, t, r = step.own["peer"], self.temperature, self.peer_temperature
        x = step.attack(lambda x, logits, target: kl_divergence(target, logits), peer(step.x).logits)
        own, adversarial = peer(x, train=True).logits, step.student(x, train=True).logits
        if self.repeat_pass:
            step.student.update_statistics(x)
        clean = step.student(step.x, train=True).logits
        target = adversarial.detach() if self.detach_target else adversarial
        from_peer, from_clean = (t**2 * kl_divergence(q, adversarial, t) for q in (own.detach(), clean))
        return (
            Term("peer_cross_entropy", cross_entropy(own, step.targets), self.gamma1),
            Term("peer_divergence", r**2 * kl_divergence(target, own, r), self.gamma2, divergence=True),
            Term("cross_entropy", cross_entropy(adversarial, step.targets), self.lambda1),
            Term("divergence", from_peer, self.lambda2, divergence=True),
            Term("consistency", from_clean, self.lambda3, divergence=True),
        )
