"""What is known of a dataset before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    shape: tuple[int, int, int]  # C, H, W
    classes: tuple[str, ...]
    flips: bool  # whether a mirrored image keeps its class
    sizes: dict[str, int]  # images per split: train, validation, test
    white: int = 255  # the stored value that stands for 1.0
