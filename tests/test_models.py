"""Architectures against the published ones: names, shapes and counts by rules, and forward passes in plain torch, both
written down here once more from the published code."""

from __future__ import annotations

import importlib.util
from math import prod
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from robust_distillation import load_model, models
from robust_distillation.errors import UserError
from robust_distillation.models import flops
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.models.normalised import Normalised
from robust_distillation.models.output import output

CIFAR = (3, 32, 32)
OWN = [name for name in models.names() if name != "robustbench"]  # that one needs a package of its own
EXAMPLES = Path(importlib.util.find_spec("pyautoattack").origin).parent / "examples"


# What the published state dicts hold: name to shape.


def conv(name: str, outputs: int, inputs: int, kernel: int) -> dict:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)}


def norm(name: str, size: int) -> dict:
    vectors = {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def linear(name: str, outputs: int, inputs: int) -> dict:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def resnet_keys(channels=3, classes=10, depth=18, width=64) -> dict:
    keys = {**conv("conv1", width, channels, 3), **norm("bn1", width)}
    inputs = width
    for layer, count in enumerate({18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth], start=1):
        planes = width * 2 ** (layer - 1)
        outputs = 4 * planes if depth == 50 else planes
        for index in range(count):
            at = f"layer{layer}.{index}"
            if depth == 50:
                keys |= conv(f"{at}.conv1", planes, inputs, 1) | conv(f"{at}.conv2", planes, planes, 3)
                keys |= conv(f"{at}.conv3", outputs, planes, 1)
                keys |= norm(f"{at}.bn1", planes) | norm(f"{at}.bn2", planes) | norm(f"{at}.bn3", outputs)
            else:
                keys |= conv(f"{at}.conv1", planes, inputs, 3) | conv(f"{at}.conv2", planes, planes, 3)
                keys |= norm(f"{at}.bn1", planes) | norm(f"{at}.bn2", planes)
            if index == 0 and (layer > 1 or depth == 50):
                keys |= conv(f"{at}.shortcut.0", outputs, inputs, 1) | norm(f"{at}.shortcut.1", outputs)
            inputs = outputs
    return {**keys, **linear("linear", classes, inputs)}


def cifar_resnet_keys(channels=3, classes=10, depth=56, width=16) -> dict:
    keys, inputs = {**conv("conv1", width, channels, 3), **norm("bn1", width)}, width
    for layer in (1, 2, 3):
        planes = width * 2 ** (layer - 1)
        for index in range((depth - 2) // 6):
            at = f"layer{layer}.{index}"
            keys |= conv(f"{at}.conv1", planes, inputs, 3) | norm(f"{at}.bn1", planes)
            keys |= conv(f"{at}.conv2", planes, planes, 3) | norm(f"{at}.bn2", planes)
            if index == 0 and layer > 1:
                keys |= conv(f"{at}.downsample.0", planes, inputs, 1) | norm(f"{at}.downsample.1", planes)
            inputs = planes
    return {**keys, **linear("fc", classes, inputs)}


def preact_keys(channels=3, classes=10, width=64, final_bn=True, **_) -> dict:
    keys, inputs = conv("conv1", width, channels, 3), width
    for layer in (1, 2, 3, 4):
        planes = width * 2 ** (layer - 1)
        for index in (0, 1):
            at = f"layer{layer}.{index}"
            keys |= norm(f"{at}.bn1", inputs) | conv(f"{at}.conv1", planes, inputs, 3)
            keys |= norm(f"{at}.bn2", planes) | conv(f"{at}.conv2", planes, planes, 3)
            if index == 0 and layer > 1:
                keys |= conv(f"{at}.shortcut.0", planes, inputs, 1)
            inputs = planes
    return {**keys, **(norm("bn", inputs) if final_bn else {}), **linear("linear", classes, inputs)}


# One line a block: expansion, channels, stride.
MOBILE = [(1, 16, 1), (6, 24, 1), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1), (6, 64, 2), (6, 64, 1), (6, 64, 1),
          (6, 64, 1), (6, 96, 1), (6, 96, 1), (6, 96, 1), (6, 160, 2), (6, 160, 1), (6, 160, 1),
          (6, 320, 1)]  # fmt: skip


def mobilenet_keys(channels=3, classes=10, width=32) -> dict:
    keys, inputs = {**conv("conv1", width, channels, 3), **norm("bn1", width)}, width
    for index, (expansion, size, stride) in enumerate(MOBILE):
        at, inner, outputs = f"layers.{index}", expansion * inputs, size * width // 32
        keys |= conv(f"{at}.conv1", inner, inputs, 1) | norm(f"{at}.bn1", inner)
        keys |= conv(f"{at}.conv2", inner, 1, 3) | norm(f"{at}.bn2", inner)
        keys |= conv(f"{at}.conv3", outputs, inner, 1) | norm(f"{at}.bn3", outputs)
        if stride == 1 and inputs != outputs:
            keys |= conv(f"{at}.shortcut.0", outputs, inputs, 1) | norm(f"{at}.shortcut.1", outputs)
        inputs = outputs
    last = 40 * width
    return {**keys, **conv("conv2", last, inputs, 1), **norm("bn2", last), **linear("linear", classes, last)}


def wide_block(at: str, inputs: int, outputs: int, names: tuple) -> dict:
    bn1, conv1, bn2, conv2, shortcut = (f"{at}.{name}" for name in names)
    keys = norm(bn1, inputs) | conv(conv1, outputs, inputs, 3) | norm(bn2, outputs) | conv(conv2, outputs, outputs, 3)
    return keys | (conv(shortcut, outputs, inputs, 1) if inputs != outputs else {})


def wide_keys(channels=3, classes=10, depth=34, width=10, unused=False) -> dict:
    names = ("bn1", "conv1", "bn2", "conv2", "convShortcut")
    keys, sizes = conv("conv1", 16, channels, 3), (16, 16 * width, 32 * width, 64 * width)
    for group in (1, 2, 3):
        for place in (f"block{group}", "sub_block1") if unused and group == 1 else (f"block{group}",):
            for index in range((depth - 4) // 6):
                inputs = sizes[group - 1] if index == 0 else sizes[group]
                keys |= wide_block(f"{place}.layer.{index}", inputs, sizes[group], names)
    return {**keys, **norm("bn1", sizes[3]), **linear("fc", classes, sizes[3])}


def dm_keys(channels=3, classes=10, depth=70, width=16) -> dict:
    names = ("batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut")
    keys, sizes = conv("init_conv", 16, channels, 3), (16, 16 * width, 32 * width, 64 * width)
    for group in range(3):
        for index in range((depth - 4) // 6):
            inputs = sizes[group] if index == 0 else sizes[group + 1]
            keys |= wide_block(f"layer.{group}.block.{index}", inputs, sizes[group + 1], names)
    return {**keys, **norm("batchnorm", sizes[3]), **linear("logits", classes, sizes[3])}


KEYS = {
    "resnet": resnet_keys,
    "cifar_resnet": cifar_resnet_keys,
    "preact_resnet": preact_keys,
    "mobilenet_v2": mobilenet_keys,
    "wide_resnet": wide_keys,
    "dm_wide_resnet": dm_keys,
}


def parameters(keys: dict) -> int:
    return sum(prod(shape) for name, shape in keys.items() if name.rpartition(".")[2] in ("weight", "bias"))


def meta(name: str, classes: int = 10, shape=CIFAR, **arguments) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model({"name": name, **arguments}, shape, classes)


def filled(keys: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with these names and shapes, float64, such that no batch norm is close to the identity."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in keys.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
        else:
            scale = prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            state[name] = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return state


# Forward passes in plain torch. s: the state dict; train: batch norm uses the batch's statistics.


def bn(s, at, x, train):
    mean, var = s[f"{at}.running_mean"].clone(), s[f"{at}.running_var"].clone()
    return F.batch_norm(x, mean, var, s[f"{at}.weight"], s[f"{at}.bias"], train, 0.1, 1e-5)


def pool_and_classify(s, x, classifier):
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), s[f"{classifier}.weight"], s[f"{classifier}.bias"])


def resnet(s, x, train, **_):
    x = F.relu(bn(s, "bn1", F.conv2d(x, s["conv1.weight"], padding=1), train))
    for layer in (1, 2, 3, 4):
        for index in range(6):
            at, stride = f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            if f"{at}.conv1.weight" not in s:
                break
            if f"{at}.conv3.weight" in s:
                y = F.relu(bn(s, f"{at}.bn1", F.conv2d(x, s[f"{at}.conv1.weight"]), train))
                y = F.conv2d(y, s[f"{at}.conv2.weight"], stride=stride, padding=1)
                y = F.conv2d(F.relu(bn(s, f"{at}.bn2", y, train)), s[f"{at}.conv3.weight"])
                y = bn(s, f"{at}.bn3", y, train)
            else:
                y = F.relu(bn(s, f"{at}.bn1", F.conv2d(x, s[f"{at}.conv1.weight"], stride=stride, padding=1), train))
                y = bn(s, f"{at}.bn2", F.conv2d(y, s[f"{at}.conv2.weight"], padding=1), train)
            if f"{at}.shortcut.0.weight" in s:
                x = bn(s, f"{at}.shortcut.1", F.conv2d(x, s[f"{at}.shortcut.0.weight"], stride=stride), train)
            x = F.relu(y + x)
    return pool_and_classify(s, x, "linear")


def cifar_resnet(s, x, train, depth, **_):
    x = F.relu(bn(s, "bn1", F.conv2d(x, s["conv1.weight"], padding=1), train))
    for layer in (1, 2, 3):
        for index in range((depth - 2) // 6):
            at, stride = f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            y = F.relu(bn(s, f"{at}.bn1", F.conv2d(x, s[f"{at}.conv1.weight"], stride=stride, padding=1), train))
            y = bn(s, f"{at}.bn2", F.conv2d(y, s[f"{at}.conv2.weight"], padding=1), train)
            if stride == 2:
                x = bn(s, f"{at}.downsample.1", F.conv2d(x, s[f"{at}.downsample.0.weight"], stride=2), train)
            x = F.relu(y + x)
    return pool_and_classify(s, x, "fc")


def preact_resnet(s, x, train, shortcut="activated", final_bn=True, **_):
    x = F.conv2d(x, s["conv1.weight"], padding=1)
    for layer in (1, 2, 3, 4):
        for index in (0, 1):
            at, stride = f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            y = F.relu(bn(s, f"{at}.bn1", x, train))
            if f"{at}.shortcut.0.weight" in s:
                x = F.conv2d({"activated": y, "raw": x}[shortcut], s[f"{at}.shortcut.0.weight"], stride=stride)
            y = F.conv2d(y, s[f"{at}.conv1.weight"], stride=stride, padding=1)
            x = F.conv2d(F.relu(bn(s, f"{at}.bn2", y, train)), s[f"{at}.conv2.weight"], padding=1) + x
    return pool_and_classify(s, F.relu(bn(s, "bn", x, train)) if final_bn else x, "linear")


def mobilenet_v2(s, x, train, **_):
    x = F.relu(bn(s, "bn1", F.conv2d(x, s["conv1.weight"], padding=1), train))
    for index, (_, _, stride) in enumerate(MOBILE):
        at = f"layers.{index}"
        y = F.relu(bn(s, f"{at}.bn1", F.conv2d(x, s[f"{at}.conv1.weight"]), train))
        y = F.conv2d(y, s[f"{at}.conv2.weight"], stride=stride, padding=1, groups=y.shape[1])
        y = bn(s, f"{at}.bn3", F.conv2d(F.relu(bn(s, f"{at}.bn2", y, train)), s[f"{at}.conv3.weight"]), train)
        if f"{at}.shortcut.0.weight" in s:
            x = bn(s, f"{at}.shortcut.1", F.conv2d(x, s[f"{at}.shortcut.0.weight"]), train)
        x = y + x if stride == 1 else y
    return pool_and_classify(s, F.relu(bn(s, "bn2", F.conv2d(x, s["conv2.weight"]), train)), "linear")


def wide_resnet(s, x, train, depth, **_):
    x = F.conv2d(x, s["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for index in range((depth - 4) // 6):
            at, stride = f"block{group}.layer.{index}", 2 if group > 1 and index == 0 else 1
            y = F.relu(bn(s, f"{at}.bn1", x, train))
            if f"{at}.convShortcut.weight" in s:
                x = F.conv2d(y, s[f"{at}.convShortcut.weight"], stride=stride)
            y = F.relu(bn(s, f"{at}.bn2", F.conv2d(y, s[f"{at}.conv1.weight"], stride=stride, padding=1), train))
            x = x + F.conv2d(y, s[f"{at}.conv2.weight"], padding=1)
    return pool_and_classify(s, F.relu(bn(s, "bn1", x, train)), "fc")


def swish(x):
    return x * torch.sigmoid(x)


def dm_wide_resnet(s, x, train, depth, **_):
    x = F.conv2d(x, s["init_conv.weight"], padding=1)
    for group in range(3):
        for index in range((depth - 4) // 6):
            at, halves = f"layer.{group}.block.{index}", group > 0 and index == 0
            y = swish(bn(s, f"{at}.batchnorm_0", x, train))
            if f"{at}.shortcut.weight" in s:
                x = F.conv2d(y, s[f"{at}.shortcut.weight"], stride=2 if halves else 1)
            y = F.pad(y, (0, 1, 0, 1) if halves else (1, 1, 1, 1))
            y = F.conv2d(y, s[f"{at}.conv_0.weight"], stride=2 if halves else 1)
            x = x + F.conv2d(swish(bn(s, f"{at}.batchnorm_1", y, train)), s[f"{at}.conv_1.weight"], padding=1)
    return pool_and_classify(s, swish(bn(s, "batchnorm", x, train)), "logits")


FORWARD = {
    "resnet": resnet,
    "cifar_resnet": cifar_resnet,
    "preact_resnet": preact_resnet,
    "mobilenet_v2": mobilenet_v2,
    "wide_resnet": wide_resnet,
    "dm_wide_resnet": dm_wide_resnet,
}

NARROW = [
    ("resnet", {"depth": 18, "width": 4}),
    ("resnet", {"depth": 34, "width": 2}),
    ("resnet", {"depth": 50, "width": 2}),
    ("cifar_resnet", {"depth": 20, "width": 4}),
    ("cifar_resnet", {"depth": 32, "width": 2}),
    ("preact_resnet", {"width": 4, "shortcut": "activated", "final_bn": True}),
    ("preact_resnet", {"width": 4, "shortcut": "raw", "final_bn": True}),
    ("preact_resnet", {"width": 4, "shortcut": "raw", "final_bn": False}),
    ("preact_resnet", {"width": 4, "shortcut": "activated", "final_bn": False}),
    ("mobilenet_v2", {"width": 4}),
    ("mobilenet_v2", {"width": 8}),
    ("wide_resnet", {"depth": 10, "width": 1}),
    ("wide_resnet", {"depth": 16, "width": 2}),
    ("dm_wide_resnet", {"depth": 10, "width": 1}),
    ("dm_wide_resnet", {"depth": 16, "width": 2}),
]


def title(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("name", "arguments", "classes", "published"),
    [
        ("resnet", {"depth": 18}, 10, 11_173_962),
        ("resnet", {"depth": 18}, 100, 11_220_132),
        ("resnet", {"depth": 34}, 10, 21_282_122),
        ("resnet", {"depth": 50}, 10, 23_520_842),
        # He et al. count 0.27 M to 1.7 M, without the convolutions of the shortcuts.
        ("cifar_resnet", {"depth": 20}, 10, 272_474),
        ("cifar_resnet", {"depth": 56}, 10, 855_770),
        ("cifar_resnet", {"depth": 110}, 10, None),
        ("preact_resnet", {"final_bn": False}, 10, 11_171_146),
        ("preact_resnet", {"final_bn": True}, 10, 11_172_170),
        ("mobilenet_v2", {}, 10, 2_296_922),
        ("mobilenet_v2", {}, 100, 2_412_212),
        ("wide_resnet", {"depth": 34, "width": 10}, 10, 46_160_474),
        ("wide_resnet", {"depth": 28, "width": 10}, 10, 36_479_194),
        ("wide_resnet", {"depth": 28, "width": 10}, 100, 36_536_884),
        ("wide_resnet", {"depth": 34, "width": 20}, 10, None),  # published only as 184.5 M
        ("wide_resnet", {"depth": 70, "width": 16}, 10, 266_796_506),
        ("dm_wide_resnet", {"depth": 28, "width": 10}, 10, 36_479_194),
        ("dm_wide_resnet", {"depth": 70, "width": 16}, 10, 266_796_506),
        ("dm_wide_resnet", {"depth": 70, "width": 16}, 100, None),
    ],
    ids=title,
)
def test_names_shapes_and_parameter_counts_are_the_published_ones(name, arguments, classes, published):
    model, keys = meta(name, classes, **arguments), KEYS[name](classes=classes, **arguments)
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == keys
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == parameters(keys)
    if published is not None:
        assert found == published


@pytest.mark.parametrize("name", KEYS)
def test_defaults_are_the_published_networks(name):
    assert {key: tuple(tensor.shape) for key, tensor in meta(name).state_dict().items()} == KEYS[name]()


def test_trades_file_holds_an_unused_stage_besides():
    keys = wide_keys(unused=True)
    assert parameters(keys) == 48_262_586
    unused = {key for key in keys if key.startswith("sub_block1.")}
    assert set(keys) - unused == set(meta("wide_resnet").state_dict())
    arguments = {"depth": 10, "width": 1}
    state = filled(wide_keys(unused=True, **arguments))
    model = build_model({"name": "wide_resnet", **arguments}, CIFAR, 10)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*sub_block1\.layer\.0\.bn1\.weight"):
        model.load_state_dict(state)
    model.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("sub_block1.")})


@pytest.mark.parametrize(("name", "arguments"), NARROW, ids=title)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_forward_is_that_of_the_published_code(name, arguments, train):
    state = filled(KEYS[name](classes=7, **arguments))
    model = build_model({"name": name, **arguments}, CIFAR, 7).double()
    model.load_state_dict(state)
    x = torch.rand(4, *CIFAR, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = FORWARD[name](state, x, train, **arguments), model.train(train)(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_shortcut_of_preact_resnet_makes_a_difference():
    """No state dict shows it: the same tensors are two networks."""
    state = filled(preact_keys(width=4))
    x = torch.rand(2, *CIFAR, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    raw, activated = (preact_resnet(state, x, train=False, shortcut=shortcut) for shortcut in ("raw", "activated"))
    assert (raw - activated).abs().max() > 0.01


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_is_bit_equal_to_published_code(depth):
    """The file that pyautoattack ships, which is kuangliu's."""
    spec = importlib.util.spec_from_file_location("published_resnet", EXAMPLES / "resnet.py")
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    theirs = getattr(published, f"ResNet{depth}")().eval()
    ours = build_model({"name": "resnet", "depth": depth}, CIFAR, 10).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, *CIFAR, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_third_party_checkpoint_loads_as_it_is():
    state = torch.load(EXAMPLES / "model_test.pt", weights_only=True, map_location="cpu")
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == resnet_keys()
    build_model({"name": "resnet"}, CIFAR, 10).load_state_dict(state)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (3, 96, 96), (3, 17, 30)], ids=str)
def test_every_architecture_takes_images_of_any_size(name, shape):
    architecture = smallest(name)
    model = build_model(architecture, shape, 5).eval()
    x = torch.rand(2, *shape)
    with torch.no_grad():
        logits, features = output(model, x)
        assert logits.shape == (2, 5)
        assert features.shape == (2, model.classifier.in_features)
        assert isinstance(model.classifier, torch.nn.Linear)
        assert torch.equal(model(x), logits)
    assert flops.feature_width(architecture, shape, 5) == features.shape[1]


def smallest(name: str) -> dict:
    settings = {key: min(argument.choices or (2,)) for key, argument in models.arguments(name).items()}
    return {"name": name, **settings}


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"name": "resnet", "depth": 19}, "architecture resnet: depth should be one of 18, 34, 50, found 19"),
        ({"name": "cifar_resnet", "depth": 18}, "depth should be one of 20, 32, 44, 56, 110, found 18"),
        ({"name": "mobilenet_v2", "width": 6}, "width should be one of 4, 8, 12, .*found 6"),
        ({"name": "wide_resnet", "depth": 12}, "depth should be one of 10, 16, .*found 12"),
        ({"name": "preact_resnet", "shortcut": "rwa"}, "shortcut should be one of activated, raw, found 'rwa'"),
        ({"name": "resnt"}, "Did you mean 'resnet'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(architecture, message, tmp_path):
    with pytest.raises(UserError, match=message):
        build_model(architecture, CIFAR, 10)
    about = {"architecture": architecture, "dataset": {"shape": list(CIFAR), "classes": list(range(10))}}
    save_checkpoint(tmp_path / "model.safetensors", {}, about)
    with pytest.raises(UserError, match=rf"model\.safetensors.*{message}"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("width", models.arguments("mobilenet_v2")["width"].choices)
def test_every_width_of_mobilenet_scales_all_channels(width):
    assert all(size * width % 32 == 0 for _, size, _ in MOBILE)
    state = meta("mobilenet_v2", width=width).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == mobilenet_keys(width=width)


def test_wide_resnet_starts_as_trades_does():
    """Normal convolution weights of variance 2 / (kernel area x output channels); the bias of the last layer is 0."""
    model = build_model({"name": "wide_resnet", "depth": 16, "width": 4}, CIFAR, 10)
    for name, weight in model.named_parameters():
        if weight.ndim == 4 and weight.numel() > 10_000:
            expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name
            assert weight.abs().max() > 3 * expected, name  # a uniform distribution of this variance ends at 1.7
    assert not model.fc.bias.any()
    assert build_model({"name": "resnet", "width": 4}, CIFAR, 10).linear.bias.any()


MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]


def test_normalisation_of_a_checkpoint_is_applied_inside(tmp_path):
    architecture = {"name": "dm_wide_resnet", "depth": 10, "width": 1}
    about = {"architecture": architecture, "dataset": {"shape": list(CIFAR), "classes": list(range(10))}}
    plain, path = build_model(architecture, CIFAR, 10, seed=1).eval(), tmp_path / "model.safetensors"
    x = torch.rand(2, *CIFAR)
    normal = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)

    save_checkpoint(path, plain.state_dict(), {**about, "normalisation": {"mean": MEAN, "std": STD}})
    model = load_model(path)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(x), plain(normal))
        assert torch.equal(model.features(x), plain.features(normal))
        assert torch.equal(model.classifier(model.features(x)), model(x))
    assert set(model.model.state_dict()) == set(plain.state_dict())
    assert not [key for key in model.state_dict() if key.rpartition(".")[2] in ("mean", "std")]
    assert model.double()(x.double()).dtype == torch.float64

    save_checkpoint(path, plain.state_dict(), {**about, "normalisation": None})
    with torch.no_grad():
        assert torch.equal(load_model(path)(x), plain(x))
    for wrong in ({"mean": MEAN[:1], "std": STD[:1]}, {"mean": MEAN}, {"mean": MEAN, "std": ["a", "b", "c"]}):
        save_checkpoint(path, plain.state_dict(), {**about, "normalisation": wrong})
        with pytest.raises(UserError, match="do not fit its own description"):
            load_model(path)


def test_gradients_pass_the_normalisation():
    model = Normalised(build_model({"name": "resnet", "width": 2}, CIFAR, 10).eval(), MEAN, STD).double()
    x = torch.rand(1, *CIFAR, dtype=torch.float64, requires_grad=True)
    normal = ((x - model.mean) / model.std).detach().requires_grad_()
    [outside] = torch.autograd.grad(model(x).logsumexp(1).sum(), [x])
    [inside] = torch.autograd.grad(model.model(normal).logsumexp(1).sum(), [normal])
    torch.testing.assert_close(outside, inside / model.std)


@pytest.mark.parametrize(
    ("architecture", "classes", "gigaflops"),
    [
        ({"name": "resnet"}, 10, 1.111),
        ({"name": "mobilenet_v2"}, 10, 0.182),
        ({"name": "wide_resnet"}, 10, 13.318),
        ({"name": "resnet", "depth": 34}, 10, 2 * 1.161),
        ({"name": "resnet", "depth": 50}, 10, 2 * 1.305),
        ({"name": "dm_wide_resnet"}, 100, 2 * 38.8),
    ],
    ids=str,
)
def test_flops_are_the_known_ones(architecture, classes, gigaflops):
    assert flops.forward_flops(architecture, CIFAR, classes) / 1e9 == pytest.approx(gigaflops, rel=0.01)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.slow
def test_flops_are_those_that_torch_counts(name):
    for shape in ((3, 16, 16), (1, 28, 28)):
        architecture = smallest(name)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            build_model(architecture, shape, 10).eval()(torch.rand(1, *shape))
        counted = flops.forward_flops(architecture, shape, 10)
        assert isinstance(counted, int)
        assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build_model({"name": name}, CIFAR, 100)(torch.empty(2, *CIFAR))
    assert 2 * flops.forward_flops({"name": name}, CIFAR, 100) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("name", OWN)
def test_parameter_bytes_are_those_of_a_checkpoint(name, tmp_path):
    architecture, path = smallest(name), tmp_path / "model.safetensors"
    model = build_model(architecture, CIFAR, 10)
    save_checkpoint(path, model.state_dict(), {"architecture": architecture})
    header = int.from_bytes(path.read_bytes()[:8], "little")  # the format: 8 bytes of length, the header, the tensors
    assert flops.parameter_bytes(architecture, CIFAR, 10) == path.stat().st_size - 8 - header
