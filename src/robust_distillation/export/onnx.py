"""A network as ONNX, and whether it still says the same."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

BATCH = 100
LARGEST = 1e-3  # difference between two logits, as a share of the largest logit (at least 1)


@dataclass(frozen=True)
class Agreement:
    """What ONNX Runtime made of the same images."""

    images: int
    difference: float  # the largest between two logits
    same_predictions: int


def write_onnx(model: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Input `images` [batch,C,H,W] in [0,1], output `logits` [batch,K]; the batch may have any size.

    The same model gives the same bytes. Where its code lay on this machine is not written."""
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own internals
        program = torch.onnx.export(
            model, (torch.zeros(2, *shape),), input_names=["images"], output_names=["logits"], dynamo=True,
            dynamic_shapes=({0: batch},), verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def agreement(model: nn.Module, path: Path, images: Tensor) -> Agreement:
    """Holds the file at `path` against the model on images [N,C,H,W]. Raises RuntimeError where they differ."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ours, theirs = [], []
    with torch.no_grad():
        for batch in images.split(BATCH):
            ours.append(model(batch))
            theirs.append(torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]))
    expected, found = torch.cat(ours), torch.cat(theirs)
    difference = (expected - found).abs().max().item()
    same = int((expected.argmax(1) == found.argmax(1)).sum())
    if same < len(images) or not difference <= LARGEST * max(1.0, expected.abs().max().item()):
        raise RuntimeError(
            f"the ONNX model differs from the checkpoint: {len(images) - same} of {len(images)} predictions, logits by "
            f"up to {difference:.3g}. Nothing was written"
        )
    return Agreement(len(images), difference, same)
