"""The published RSLAD training step in plain torch, in our own words: what ours is measured against.

One iteration of the loop in zibojia/RSLAD (resnet18_rslad_cifar10.py, rslad_loss.py), read there: torchvision's
augmentation on PIL images one by one, the teacher asked on every batch, everything in fp32, NCHW and eager.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms


class ReferenceStep:
    def __init__(self, student: nn.Module, teacher: nn.Module, images: Tensor):
        """images uint8 [N,3,32,32]."""
        self.student, self.teacher = student, teacher.eval()
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.augmented = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )
        self.optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)

    def batch(self, index: Tensor) -> Tensor:
        return torch.stack([self.augmented(self.pictures[i]) for i in index.tolist()])

    def asked(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.teacher(x)

    def attacked(self, x: Tensor, soft: Tensor) -> Tensor:
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
        """One step; returns the CPU seconds of it in which the teacher was asked."""
        x = self.batch(index)
        began = time.process_time()
        soft = F.softmax(self.asked(x), dim=1)
        asked = time.process_time() - began
        x_adv = self.attacked(x, soft)
        self.optimizer.zero_grad()
        loss = 5 / 6 * _distance(self.student(x_adv), soft) + 1 / 6 * _distance(self.student(x), soft)
        loss.backward()
        self.optimizer.step()
        return asked


def _distance(logits: Tensor, soft: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return torch.mean(-log_p * soft + torch.log(soft + 1e-5) * soft)
