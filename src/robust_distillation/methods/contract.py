"""What a method is: what it needs, what its inner maximisation raises, and its loss terms.

A method sees tensors only. The training loop makes the forward passes it asked for, reduces and weights its terms. So
the scale of a divergence is decided in one place, and from `needs` the pipeline knows whether the cache can serve it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from robust_distillation.models.output import Output

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """The forward passes a method asks for. S is the student, T the teacher, x' the adversarial image."""

    clean: bool = False  # S(x), train mode
    adversarial: bool = False  # x' is made, and S(x'), train mode
    reference: bool = False  # S(x) in eval mode without gradient, for the inner maximisation
    teacher_logits: bool = False  # T(x): the cache can serve it
    teacher_features: bool = False  # penultimate features of T(x): the cache can serve them
    teacher_adversarial: bool = False  # T(x'): only a live teacher can

    @property
    def cached(self) -> tuple[str, ...]:
        """The kinds of cache that serve this method."""
        return ("logits",) * self.teacher_logits + ("features",) * self.teacher_features

    @property
    def teacher(self) -> bool:
        return bool(self.cached) or self.teacher_adversarial


@dataclass(frozen=True)
class Batch:
    """What a method is given: the passes it needs (others stay None), and who the samples are."""

    labels: Tensor  # int64 [B]
    index: Tensor  # int64 [B], position in the training split
    clean: Output | None = None
    adversarial: Output | None = None
    reference: Output | None = None
    teacher: Output | None = None
    teacher_adversarial: Output | None = None
    generator: torch.Generator | None = None  # for the method's own draws in this step
    epoch: int = 1  # counted from 1


class Term(NamedTuple):
    """One named part of a loss: unreduced values [B] and its weight in the sum."""

    name: str
    values: Tensor
    weight: float = 1.0
    divergence: bool = False  # a divergence over the classes: the protocol's KL scale applies to it


@dataclass(frozen=True)
class Sizes:
    """What a method's own state depends on."""

    samples: int
    classes: int
    labels: Tensor = field(repr=False)  # int64 [samples], of the training split
    student_features: int
    teacher_features: int


@dataclass(frozen=True)
class Official:
    """What a method's released code does, where it differs from our defaults: the `official` protocol."""

    training: dict[str, Any]  # keys of config's Training; complete
    settings: dict[str, Any] = field(default_factory=dict)  # of the method itself


class Method(BaseModel):
    """Base of all methods; the annotated fields are the settings that a params file may give."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    needs: ClassVar[Needs]

    def inner_objective(self, logits: Tensor, batch: Batch) -> Tensor:
        """Values [B] that x' maximises, from the student's logits [B,K] at x'. Only where `needs.adversarial`."""
        raise TypeError(f"{type(self).__name__} trains on clean images: it has no inner objective")

    def build_state(self, sizes: Sizes, generator: torch.Generator) -> torch.nn.Module | None:
        """The method's own state, trained with the student and left behind when it is done; None for most."""
        return None

    def passes(self, given: list[str], epoch: int) -> list[str]:
        """The train-mode passes of a step in this epoch, where they are not those of the settings."""
        return given

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official | None:
        """How the released code trains this architecture on data of so many classes; None: no official protocol."""
        return None

    @abstractmethod
    def loss_terms(self, batch: Batch, state: torch.nn.Module | None = None) -> tuple[Term, ...]:
        """The named, unreduced parts of the loss; the sum of weight x batch mean is what training lowers."""
