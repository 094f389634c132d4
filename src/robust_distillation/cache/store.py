"""The files of the cache: a memory-mapped array and, beside it, what it is the cache of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError
from robust_distillation.files import digest, read_json, replacing, sha256, write_json
from robust_distillation.models.output import Output


def cache_key(teacher: str, data: str, scheme: ViewScheme, kind: str) -> dict[str, Any]:
    """What a cached value depends on: the teacher's file (weights and preprocessing), the data, the views."""
    return {"teacher": teacher, "data": data, "padding": scheme.padding, "flips": scheme.flips, "kind": kind}


def description_of(path: str | Path) -> Path:
    """The JSON file that lies beside a cache file."""
    return Path(path).with_suffix(".json")


def write_cache(path: str | Path, key: dict[str, Any], shape: tuple[int, int, int], batches) -> None:
    """Fills shape [images, views, width] in order from `batches` of rows [B, width]; the file is whole or absent."""
    images, views, width = shape
    array = None
    row = 0
    with replacing(path) as temporary:
        for batch in batches:
            values = batch.cpu().numpy()
            if array is None:
                array = np.lib.format.open_memmap(
                    temporary, mode="w+", dtype=values.dtype, shape=(images * views, width)
                )
            array[row : row + len(values)] = values
            row += len(values)
        if row != images * views:
            raise ValueError(f"{path}: {row} rows were given for {images} images x {views} views")
        array.flush()
        description = {"key": key, "digest": digest(key), "shape": [images, views, width], "dtype": str(array.dtype)}
        description["sha256"] = sha256(temporary)
    write_json(description_of(path), description)


class CachedValues:
    """One kind of value of one teacher, read where it lies: a batch costs its own bytes, whatever the file's size."""

    def __init__(self, path: str | Path, key: dict[str, Any]):
        try:
            self.description = read_json(description_of(path))
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cache {path}: cannot be read ({error}). Remove it; the next start fills it again"
            ) from error
        if self.description.get("key") != key:
            differing = sorted(k for k in key if self.description.get("key", {}).get(k) != key[k])
            raise UserError(
                f"cache {path}: belongs to another {' and '.join(differing)}. Remove it; the next start fills it again"
            )
        self.images, self.views, self.width = self.description["shape"]
        if rows.shape != (self.images * self.views, self.width):
            raise UserError(
                f"cache {path}: holds {rows.shape}, not what it says. Remove it; the next start fills it again"
            )
        self.rows = rows

    def __call__(self, index: Tensor, views: Tensor) -> Tensor:
        """[B,width]: the values for view `views[i]` of training image `index[i]`."""
        return torch.from_numpy(self.rows[(index * self.views + views).numpy()])


class CachedTeacher:
    """Serves T(x) from the cache, and T(x'), where a method asks for it, from the live teacher."""

    def __init__(self, logits: CachedValues | None = None, features: CachedValues | None = None, live=None):
        self.logits, self.features, self.live = logits, features, live

    def clean(self, x: Tensor, index: Tensor, views: Tensor) -> Output:
        logits = self.logits and self.logits(index, views).to(x.device)
        features = self.features and self.features(index, views).to(x.device)
        return Output(logits, features)

    def __call__(self, x: Tensor) -> Output:
        return self.live(x)
