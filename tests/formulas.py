"""Formulas of losses in numpy, and what compares a method with them: nothing of the package's losses is used."""

from __future__ import annotations

import numpy as np
import torch

# Logits [B,K] and labels [B] in, values [B] out.


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def of_class(logits, labels):
    return np.exp(log_softmax(logits))[np.arange(len(labels)), labels]


def ce(logits, labels):
    return -np.log(of_class(logits, labels))


def kl(student, target, temperature=1.0, student_constant=0.0, target_constant=0.0):
    """Student first, target second, as in the papers' table: sum_c b_c (log b_c - log a_c)."""
    a, b = (np.exp(log_softmax(logits / temperature)) for logits in (student, target))
    return (b * (np.log(b + target_constant) - np.log(a + student_constant))).sum(1)


def unit(v):
    return v / np.sqrt((v**2).sum(-1, keepdims=True))


def numeric_gradient(function, x, h=1e-6):
    """Central differences of `function()` in the entries of x, which it reads."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        here = x[i]
        x[i] = here + h
        above = function()
        x[i] = here - h
        gradient[i] = (above - function()) / (2 * h)
        x[i] = here
    return gradient


def close(actual, expected, tolerance=1e-9):
    np.testing.assert_allclose(torch.as_tensor(actual).detach(), expected, rtol=tolerance, atol=tolerance)
