"""Small methods that use the contract as published ones do that are not in the package, each in a few lines."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods import TEACHER, Method, TeacherCalls, Term, misclassification


class Peer(Method):
    """A peer of the student's architecture is trained on x' with a rate of its own; it gives the targets (PeerAiD)."""

    terms: ClassVar = ("student", "peer")

    def networks(self, student):
        return {"peer": student}

    def optimisation(self, training):
        own = {"learning_rate": training.learning_rate / 2, "milestones": [1], "weight_decay_on": "weights"}
        return {"peer": training.model_copy(update=own)}

    def loss(self, step):
        peer = step.own["peer"]
        x = step.attack(lambda x, logits, target: kl_divergence(target, logits), peer(step.x).logits)
        own, student = peer(x, train=True).logits, step.student(x, train=True).logits
        return (
            Term("student", kl_divergence(own.detach(), student), divergence=True),
            Term("peer", cross_entropy(own, step.labels)),
        )


class TrainedTeacher(Method):
    """The teacher is trained along, from the second epoch on; until then only its batch norm moves (CIARD)."""

    terms: ClassVar = ("student", "teacher")

    def teachers(self):
        return {TEACHER: TeacherCalls(cached=("logits",), trained=True)}

    def phases(self):
        return 1, 2

    def loss(self, step):
        x = step.attack(misclassification, step.labels)
        student = Term("student", kl_divergence(step.cached().logits, step.student(x, train=True).logits), 1.0, True)
        if step.epoch == 1:
            step.own[TEACHER].update_statistics(x)
            return (student,)
        return student, Term("teacher", cross_entropy(step.own[TEACHER](x, train=True).logits, step.labels), 0.1)


class Mirrored(Method):
    """Both networks are also called at 2x - x', and the attack follows the teacher's gradient at x (SAAD, IGDM)."""

    terms: ClassVar = ("adversarial", "difference")

    def teachers(self):
        return {TEACHER: TeacherCalls(live=True, gradient=True)}

    def needs_labels(self):
        return False

    def loss(self, step):
        teacher, clean = step.teacher[TEACHER], step.x.clone().requires_grad_()
        logits = teacher(clean).logits
        [gradient] = torch.autograd.grad(logits.amax(1).sum(), clean)

        def objective(x, logits, clean, target, gradient):
            slope = (gradient * (x - clean)).flatten(1).sum(1, keepdim=True)
            return kl_divergence(target + slope, logits)

        x = step.attack(objective, step.x, logits.detach(), gradient)
        mirrored = 2 * step.x - x
        pairs = [(step.student(images, train=True).logits, teacher(images).logits) for images in (x, mirrored)]
        (adversarial, target), (other, other_target) = pairs
        difference = kl_divergence(target - other_target, adversarial - other)
        ramp = step.epoch / step.epochs
        return (
            Term("adversarial", kl_divergence(target, adversarial), divergence=True),
            Term("difference", difference, ramp, divergence=True),
        )


class JointSearch(Method):
    """An attack of the method's own: one image for the student, one for the teacher, apart from each other (CGARD)."""

    terms: ClassVar = ("adversarial",)

    def teachers(self):
        return {TEACHER: TeacherCalls(live=True, gradient=True)}

    def search(self, step):
        images = [step.x + step.starting_noise() for _ in range(2)]
        for _ in range(2):
            own, its = (image.detach().requires_grad_() for image in images)
            distance = kl_divergence(step.teacher[TEACHER](its).logits, step.student(own).logits).sum()
            gradients = torch.autograd.grad(distance, [own, its])
            images = [step.ascend(image, gradient) for image, gradient in zip((own, its), gradients, strict=True)]
        return images

    def loss(self, step):
        own, its = step.once(lambda: self.search(step))
        distance = kl_divergence(step.teacher[TEACHER](its).logits, step.student(own, train=True).logits)
        return (Term("adversarial", distance, divergence=True),)


class Temperatures(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("temperature", torch.ones(classes))
        self.register_buffer("sums", torch.zeros(classes))


class ClassTemperatures(Method):
    """The teacher's labels have a temperature for each class, which follows the losses of an epoch (ABSLD)."""

    terms: ClassVar = ("adversarial",)

    def teachers(self):
        return {TEACHER: TeacherCalls(cached=("logits",))}

    def build(self, sizes, generator):
        return {"temperatures": Temperatures(sizes.classes)}

    def loss(self, step):
        state = step.own["temperatures"]
        soft = step.cached().logits / state.temperature[step.labels][:, None]
        x = step.attack(lambda x, logits, soft: kl_divergence(soft, logits), soft)
        logits = step.student(x, train=True).logits
        with torch.no_grad():
            hardness = step.gather(cross_entropy(logits, step.labels))
            state.sums.index_add_(0, step.gather(step.labels), hardness.to(state.sums.dtype))
        return (Term("adversarial", kl_divergence(soft, logits), divergence=True),)

    def after_epoch(self, end):
        state = end.own["temperatures"]
        gap = state.sums - state.sums.mean()
        state.temperature.sub_(0.1 * end.next_decay * gap / gap.abs().amax()).clamp_(0.5, 5)
        state.sums.zero_()


class InBatch(Method):
    """Every image is told from all others of the batch, of all processes (CKD, CRDND)."""

    terms: ClassVar = ("contrast",)

    def teachers(self):
        return {"first": TeacherCalls(live=True), "second": TeacherCalls(cached=("logits",))}

    def build(self, sizes, generator):
        head = nn.Linear(sizes.student_features, sizes.classes)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)
        return {"head": head}

    def loss(self, step):
        student = step.student(step.attack(misclassification, step.labels), train=True)
        logits = nn.functional.normalize(step.gather(student.logits + step.own["head"](student.features)), dim=1)
        target = nn.functional.normalize(step.cached("second").logits + step.teacher["first"](step.x).logits, dim=1)
        own = (step.gather(step.ids)[None] == step.ids[:, None]).to(logits.dtype)
        values = -((target @ logits.T).log_softmax(1) * own).sum(1)
        spread = step.maximum(values.detach()) - step.minimum(values.detach())
        return (Term("contrast", values / (1 + spread)),)


class Everything(Method):
    """Two teachers, one of which is trained along, and a network of the method's own with an optimiser of its own."""

    terms: ClassVar = ("natural", "robust", "peer", "teacher")

    def teachers(self):
        return {"robust": TeacherCalls(live=True, trained=True), "natural": TeacherCalls(cached=("logits",))}

    def networks(self, student):
        return {"peer": student}

    def optimisation(self, training):
        return {"peer": training.model_copy(update={"learning_rate": training.learning_rate / 3})}

    def loss(self, step):
        x = step.attack(misclassification, step.labels)
        logits, clean = (step.student(images, train=True).logits for images in (x, step.x))
        peer, teacher = (step.own[name](x, train=True).logits for name in ("peer", "robust"))
        return (
            Term("natural", kl_divergence(step.cached("natural").logits, clean), divergence=True),
            Term("robust", kl_divergence(step.teacher["robust"](x).logits, logits), divergence=True),
            Term("peer", kl_divergence(logits.detach(), peer)),
            Term("teacher", cross_entropy(teacher, step.labels)),
        )


TOYS = {
    toy.__name__: toy for toy in (Peer, TrainedTeacher, Mirrored, JointSearch, ClassTemperatures, InBatch, Everything)
}
