"""Re-implements the published RSLAD training step in plain torch, as the reference of speed measurements.

It does what one iteration of the loop in zibojia/RSLAD does (resnet18_rslad_cifar10.py, rslad_loss.py): torchvision's
augmentation on PIL images one by one, the teacher called on every batch, all in fp32, NCHW and eager mode.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms


class ReferenceStep:
    """The published RSLAD training step."""

    def __init__(self, student: nn.Module, teacher: nn.Module, images: Tensor):
        """Makes the optimizer and the augmentation.

        Args:
            student: the network to train.
            teacher: the teacher.
            images: training images, uint8 [N,3,32,32].
        """
        self.student, self.teacher = student, teacher.eval()
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.augment = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )
        self.optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)

    def batch(self, index: Tensor) -> Tensor:
        """Augments images `index` [B] and returns them, float32 [B,3,32,32] in [0,1]."""
        return torch.stack([self.augment(self.pictures[i]) for i in index.tolist()])

    def teacher_logits(self, x: Tensor) -> Tensor:
        """Calls the teacher on images x [B,3,32,32] and returns its logits [B,K]."""
        with torch.no_grad():
            return self.teacher(x)

    def attack(self, x: Tensor, soft: Tensor) -> Tensor:
        """Maximises KL(soft || student) by 10 steps of PGD. soft: the teacher's probabilities [B,K]. Returns x'."""
        self.student.eval()
        x_adv = x.detach() + 0.001 * torch.randn(x.shape).to(x.device)
        for _ in range(10):
            x_adv.requires_grad_()
            with torch.enable_grad():
                loss = torch.sum(F.kl_div(F.log_softmax(self.student(x_adv), dim=1), soft, reduction="none"))
            gradient = torch.autograd.grad(loss, [x_adv])[0]
            x_adv = x_adv.detach() + 2 / 255 * torch.sign(gradient)
            x_adv = torch.min(torch.max(x_adv, x - 8 / 255), x + 8 / 255)
            x_adv = torch.clamp(x_adv, 0.0, 1.0)
        self.student.train()
        return x_adv

    def __call__(self, index: Tensor) -> float:
        """Trains on images `index` [B]. Returns the CPU seconds of the teacher's forward pass."""
        x = self.batch(index)
        began = time.process_time()
        soft = F.softmax(self.teacher_logits(x), dim=1)
        teacher_seconds = time.process_time() - began
        x_adv = self.attack(x, soft)
        self.optimizer.zero_grad()
        loss = 5 / 6 * _distance(self.student(x_adv), soft) + 1 / 6 * _distance(self.student(x), soft)
        loss.backward()
        self.optimizer.step()
        return teacher_seconds


def _distance(logits: Tensor, soft: Tensor) -> Tensor:
    """Computes the released code's distance of the student's logits to the teacher's probabilities."""
    log_p = F.log_softmax(logits, dim=1)
    return torch.mean(-log_p * soft + torch.log(soft + 1e-5) * soft)
