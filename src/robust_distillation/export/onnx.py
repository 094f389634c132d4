"""Export of a model to ONNX, and comparison of the exported model with the original."""

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
LARGEST = 1e-3  # largest allowed difference between two logits, relative to max(1, largest logit)


@dataclass(frozen=True)
class Agreement:
    """Comparison of a model's logits in PyTorch and in ONNX Runtime on the same images.

    Attributes:
        images: number of images N.
        difference: largest absolute difference between the two values of a logit, over all images and classes.
        same_predictions: number of images for which PyTorch and ONNX Runtime predict the same class.
    """

    images: int
    difference: float
    same_predictions: int


def write_onnx(model: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Writes a PyTorch model as an ONNX file, which other runtimes can execute.

    The ONNX model has the input `images`, float32 [batch,C,H,W] in [0,1], and the output `logits` [batch,K]. The batch
    may have any size. The same model gives the same bytes. The file contains no path of this machine.

    Args:
        model: the model, in eval mode on the CPU; maps images [N,C,H,W] in [0,1] to logits [N,K].
        shape: (C, H, W) of the images.
        path: file to write, for example `model.onnx`. An existing file is replaced.
    """
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals
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
    """Compares an ONNX model with the PyTorch model that it was exported from, and raises if they differ.

    Args:
        model: the PyTorch model, in eval mode on the CPU; maps images [N,C,H,W] in [0,1] to logits [N,K].
        path: the ONNX file, as `write_onnx` writes it. ONNX Runtime computes it on the CPU in batches of 100.
        images: float32 [N,C,H,W] in [0, 1], with N at least 1.

    Returns:
        An `Agreement`: `images` (number N), `difference` (largest absolute difference between two logits) and
        `same_predictions` (number of equal predictions, which is N).

    Raises:
        RuntimeError: a predicted class differs, or two logits differ by more than 0.001 * max(1, largest absolute logit
            of the PyTorch model). The factor 0.001 is the constant LARGEST.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    torch_logits, onnx_logits = [], []
    with torch.no_grad():
        for batch in images.split(BATCH):
            torch_logits.append(model(batch))
            onnx_logits.append(torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]))
    expected, actual = torch.cat(torch_logits), torch.cat(onnx_logits)
    difference = (expected - actual).abs().max().item()
    same = int((expected.argmax(1) == actual.argmax(1)).sum())
    if same < len(images) or not difference <= LARGEST * max(1.0, expected.abs().max().item()):
        raise RuntimeError(
            f"the ONNX model differs from the checkpoint: {len(images) - same} of {len(images)} predictions, logits by "
            f"up to {difference:.3g}. Nothing was written"
        )
    return Agreement(len(images), difference, same)
