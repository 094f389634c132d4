"""Published checkpoints: files with the published key names, as the published codes save them, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import io
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import save_file

from robust_distillation.errors import UserError
from robust_distillation.models import names
from robust_distillation.models.checkpoint import build_model, load_model, save_checkpoint
from robust_distillation.models.weights import layout
from robust_distillation.pipeline.importing import import_robustbench, import_state, locate, robustbench_file
from robust_distillation.reference import checkpoints
from robust_distillation.reference.checkpoints import NORMALISATIONS, SOURCES, KnownCheckpoint

SHAPE = (3, 32, 32)
CLASSES = {"cifar10": 10, "cifar100": 100}
NARROW = {
    "resnet": {"name": "resnet", "depth": 18, "width": 2},
    "mobilenet_v2": {"name": "mobilenet_v2", "width": 4},
    "wide_resnet": {"name": "wide_resnet", "depth": 10, "width": 1},
    "dm_wide_resnet": {"name": "dm_wide_resnet", "depth": 10, "width": 1},
    "preact_resnet": {"name": "preact_resnet", "width": 2},
    "cifar_resnet": {"name": "cifar_resnet", "depth": 20, "width": 2},
}
RESNET = NARROW["resnet"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(architecture: dict = RESNET, seed: int = 1) -> dict[str, torch.Tensor]:
    """A narrow state dict with the published key names; no tensor is constant."""
    generator = torch.Generator().manual_seed(seed)
    state = build_model(architecture, SHAPE, 10, seed).state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else torch.tensor(7)
        for name, value in state.items()
    }


def imported(path: Path, architecture: dict = RESNET, source: str = "file", classes: int = 10, **settings):
    return import_state(source, str(path), settings.pop("sha256", None), architecture, SHAPE, classes, **settings)


def refusal(path: Path, architecture: dict = RESNET, **settings) -> str:
    with pytest.raises(UserError) as caught:
        imported(path, architecture, **settings)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    return str(caught.value)


def same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(state) == list(expected) and all(torch.equal(state[name], expected[name]) for name in expected)


# --- the table -------------------------------------------------------------------------------------------------------


def test_sources_cost_no_import_of_torch():
    code = "import sys; from robust_distillation.pipeline import importing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_source_is_of_an_architecture_and_a_normalisation_that_exist():
    for name, source in SOURCES.items():
        assert source.dataset in CLASSES, name
        assert source.normalisation in (None, *NORMALISATIONS), name
        assert source.architecture["name"] in names(), name
        assert layout(source.architecture, SHAPE, CLASSES[source.dataset]), name
        assert source.page.startswith("https://"), name
        assert source.url is None or source.url.startswith("https://"), name
        assert source.url is None or source.url.rpartition("/")[2] == source.file, name
        assert source.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", source.sha256), name
    assert len({source.file for source in SOURCES.values()}) == len(SOURCES)


def parameters(name: str, *beginnings: str) -> int:
    source = SOURCES[name]
    sizes = layout(source.architecture, SHAPE, CLASSES[source.dataset])
    parts = [key for key in sizes if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    chosen = [key for key in parts if key.startswith(beginnings)] if beginnings else parts
    return sum(torch.Size(sizes[key][0]).numel() for key in chosen)


def test_parameter_counts_are_the_published_ones():
    assert parameters("rslad_resnet18_cifar10") == 11_173_962
    assert parameters("rslad_resnet18_cifar100") == 11_220_132
    assert parameters("rslad_mobilenet_v2_cifar10") == 2_296_922
    assert parameters("rslad_mobilenet_v2_cifar100") == 2_412_212
    assert parameters("trades_wrn_34_10") == 46_160_474
    assert parameters("bdm_wrn_28_10_cifar10") == 36_479_194
    # TRADES' file carries the first stage twice: once as sub_block1.
    assert parameters("trades_wrn_34_10") + parameters("trades_wrn_34_10", "block1.") == 48_262_586


def test_files_of_robustbench_lie_where_its_package_puts_them():
    """So either finds what the other has fetched."""
    found = {name: source for name, source in SOURCES.items() if source.file.startswith("robustbench/")}
    assert len(found) == 7
    for name, source in found.items():
        model = Path(source.file).stem
        assert locate(name, None) == robustbench_file(model, source.dataset, "linf"), name
        assert model in source.note, name
        assert source.page.startswith("https://drive.google.com/file/d/"), name


def row(name: str, source: KnownCheckpoint) -> str:
    architecture = ", ".join(f"{key} {value}" for key, value in source.architecture.items() if key != "name")
    where = f"[{source.file}]({source.url}), [page]({source.page})" if source.url else f"[page]({source.page})"
    return (
        f"| `{name}` | {source.architecture['name']}, {architecture} | {source.dataset} | "
        f"{source.normalisation or 'none'} | {source.threat} | `{source.file}` | "
        f"{f'`{source.sha256}`' if source.sha256 else 'none published'} | {where} |"
    )


def test_the_documented_table_is_the_one_in_the_code():
    text = (REPOSITORY / "docs" / "importing.md").read_text(encoding="utf-8")
    documented = [line for line in text.splitlines() if line.startswith("| `")]
    assert documented == [row(name, source) for name, source in SOURCES.items()]
    flowing = " ".join(text.split())
    for name, source in SOURCES.items():
        assert f"- `{name}`: {source.note}" in flowing
    for name, numbers in NORMALISATIONS.items():
        assert f"`{name}`: mean {numbers['mean']}, std {numbers['std']}" in flowing


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", NARROW)
def test_a_file_with_the_published_names_becomes_the_same_model(family, tmp_path):
    """Through the checkpoint to `load_model`: the logits are those of the published weights."""
    architecture, state = NARROW[family], weights(NARROW[family])
    torch.save(state, "published.pt")
    found, digest = imported(Path("published.pt"), architecture)
    assert same(found, state)
    assert digest == hashlib.sha256(Path("published.pt").read_bytes()).hexdigest()
    dataset = {"shape": list(SHAPE), "classes": [str(label) for label in range(10)]}
    save_checkpoint("ours.safetensors", found, {"architecture": architecture, "dataset": dataset})
    model = build_model(architecture, SHAPE, 10)
    model.load_state_dict(state)
    x = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_model("ours.safetensors")(x), model.eval()(x))


FORMS = {
    "legacy file": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, path: save_file(state, path),
    "module.": lambda state, path: torch.save({f"module.{key}": value for key, value in state.items()}, path),
    "module.model.": lambda state, path: torch.save({f"module.model.{k}": value for k, value in state.items()}, path),
    "as ARD": lambda state, path: torch.save({"net": state, "epoch": 199, "optimizer": {"state": {}}}, path),
    "as RSLAD": lambda state, path: torch.save(
        {"student": {f"module.{key}": value for key, value in state.items()}, "optimizer": {"state": {}}}, path
    ),
    "model_state_dict": lambda state, path: torch.save({"model_state_dict": state, "best": 0.5}, path),
    "twice nested": lambda state, path: torch.save({"model": {"state_dict": state}}, path),
    "after a normaliser without numbers": lambda state, path: torch.save(
        {f"1.{key}": value for key, value in state.items()}, path
    ),
    "parameters": lambda state, path: torch.save(
        {key: torch.nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()}, path
    ),
    "other order": lambda state, path: torch.save(dict(reversed(state.items())), path),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_state_dict_is_found_in_what_scripts_save(form, tmp_path):
    FORMS[form](weights(), tmp_path / "published.pt")
    state, _ = imported(tmp_path / "published.pt")
    assert same(state, weights())
    assert not any(value.requires_grad for value in state.values())


@pytest.mark.slow
def test_trades_unused_stage_is_left_out(tmp_path):
    state = weights(NARROW["wide_resnet"])
    twin = {f"sub_{key}": value for key, value in state.items() if key.startswith("block1.")}
    assert twin
    torch.save(state | twin, tmp_path / "model_cifar_wrn.pt")
    for source in ("trades_wrn_34_10", "file"):
        assert same(imported(tmp_path / "model_cifar_wrn.pt", NARROW["wide_resnet"], source)[0], state)
    torch.save(state | {"sub_block2.x": torch.zeros(1)}, tmp_path / "other.pt")
    assert "1 keys are unknown (sub_block2.x)" in refusal(tmp_path / "other.pt", NARROW["wide_resnet"])


def test_counters_that_old_pytorch_did_not_save_are_zero(tmp_path):
    state = weights()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found, _ = imported(tmp_path / "old.pt")
    assert same({name: value for name, value in found.items() if name in old}, old)
    assert list(found) == list(state)
    assert all(found[name].dtype == torch.int64 and found[name] == 0 for name in state if name not in old)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind, tmp_path):
    cast = {name: value.to(kind) if value.is_floating_point() else value.int() for name, value in weights().items()}
    torch.save(cast, tmp_path / "cast.pt")
    found, _ = imported(tmp_path / "cast.pt")
    assert same(found, {name: value.to(weights()[name].dtype) for name, value in cast.items()})


def test_tensors_that_share_storage_in_the_file_are_parted(tmp_path):
    state = weights()
    state["layer1.0.bn1.weight"] = state["bn1.weight"]
    torch.save(state, tmp_path / "shared.pt")
    found, _ = imported(tmp_path / "shared.pt")
    assert found["layer1.0.bn1.weight"].data_ptr() != found["bn1.weight"].data_ptr()
    save_checkpoint(tmp_path / "ours.safetensors", found, {})


NORMALISER = {"mean": torch.tensor(NORMALISATIONS["cifar100"]["mean"]).view(1, 3, 1, 1)}
NORMALISER["std"] = torch.tensor(NORMALISATIONS["cifar100"]["std"]).view(1, 3, 1, 1) + 2e-4  # rounded otherwise


@pytest.mark.parametrize("prefixes", [("", ""), ("0.", "1."), ("module.0.", "module.1."), ("normalize.", "model.")])
def test_a_normaliser_in_the_file_must_be_the_chosen_one(prefixes, tmp_path):
    path, architecture = tmp_path / "normalised.pt", NARROW["dm_wide_resnet"]
    state = weights(architecture)
    wrapped = {prefixes[0] + key: value for key, value in NORMALISER.items()}
    torch.save(wrapped | {prefixes[1] + key: value for key, value in state.items()}, path)
    assert same(imported(path, architecture, "deepmind_wrn_70_16_cifar100")[0], state)
    assert same(imported(path, architecture, normalisation=NORMALISATIONS["cifar100"])[0], state)
    message = refusal(path, architecture, normalisation=NORMALISATIONS["cifar10"])
    assert "mean [0.5071, 0.4865, 0.4409]" in message
    assert "`normalisation:`" in message
    refusal(path, architecture)


# --- what is refused -------------------------------------------------------------------------------------------------


def write(content: object, path: Path) -> None:
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)


def truncated(**settings) -> bytes:
    stream = io.BytesIO()
    torch.save(weights(), stream, **settings)
    return stream.getvalue()[:-3000]


def changed(**values) -> dict[str, torch.Tensor]:
    return weights() | {key.replace("__", "."): value for key, value in values.items()}


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model/readme.txt", "weights")
    return stream.getvalue()


BROKEN = {
    "web page": (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", "is a web page"),
    "indented web page": (b"\n  <html>Too many users have viewed this file", "is a web page"),
    "empty": (b"", "is empty"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "pointer of git-lfs"),
    "numpy": (b"\x93NUMPY\x01\x00", "take the PyTorch one"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed"),
    "text": (b"these are no weights\n", "not a whole PyTorch or safetensors file"),
    "short text": (b"x", "not a whole PyTorch or safetensors file"),
    "broken safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "not a whole PyTorch or safetensors file"),
    "another zip": (archive(), "not a whole PyTorch or safetensors file"),
    "truncated": (truncated(), "not a whole PyTorch or safetensors file"),
    "truncated legacy": (truncated(_use_new_zipfile_serialization=False), "not a whole PyTorch or safetensors file"),
    "a tensor": (torch.zeros(3), "holds no state dict but a Tensor"),
    "an empty dict": ({}, "holds no state dict but an empty dict"),
    "an optimiser's": ({"state": {}, "param_groups": []}, "'state' is an empty dict"),
    "an epoch beside the weights": (changed() | {"epoch": 3}, "'epoch' is a int"),
    "numbered": ({0: torch.zeros(3)}, "0 is a Tensor"),
    "sparse": (changed(conv1__weight=torch.zeros(2, 2).to_sparse()), "conv1.weight is not a plain tensor"),
    "without values": (changed(conv1__weight=torch.zeros(2, 3, 3, 3, device="meta")), "conv1.weight is not a plain"),
    "integers": (changed(linear__bias=torch.zeros(10, dtype=torch.int64)), "linear.bias is of type torch.int64"),
    "complex": (changed(linear__bias=torch.zeros(10, dtype=torch.complex64)), "linear.bias is of type torch.complex64"),
    "counters that are fractions": (changed(bn1__num_batches_tracked=torch.tensor(0.5)), "expected torch.int64"),
    "nan": (changed(linear__bias=torch.tensor([float("nan")] * 2 + [0.0] * 8)), "linear.bias holds 2 values that are"),
    "infinity": (changed(bn1__running_var=torch.tensor([1.0, float("inf")])), "bn1.running_var holds 1 values"),
    "too large for float32": (changed(bn1__bias=torch.tensor([1e300, 0], dtype=torch.float64)), "bn1.bias holds 1"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_gives_one_message_and_leaves_nothing(kind, tmp_path):
    content, message = BROKEN[kind]
    write(content, tmp_path / "published.pt")
    assert message in refusal(tmp_path / "published.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["published.pt"]


class Code:
    """Unpickled, it would write a file."""

    def __reduce__(self):
        return Path.write_text, (Path("executed"), "yes")


@pytest.mark.parametrize("how", ["plain pickle", "in a PyTorch file", "in a legacy file", "a whole model"])
def test_code_in_a_file_is_never_run(how, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "published.pt"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Code(), protocol=2))
    elif how == "a whole model":
        torch.save(build_model(RESNET, SHAPE, 10), path)
    else:
        content = {"state_dict": weights(), "code": Code()}
        torch.save(content, path, _use_new_zipfile_serialization=how == "in a PyTorch file")
    message = refusal(path)
    assert "asks to run" in message
    assert "save the model's state dict alone" in message
    assert not Path("executed").exists()


def test_a_misfit_names_the_first_keys_and_what_would_fit(tmp_path):
    path = tmp_path / "published.pt"
    torch.save(weights(NARROW["wide_resnet"] | {"width": 3}), path)
    message = refusal(path, NARROW["wide_resnet"])
    assert "does not fit architecture wide_resnet (depth 10, width 1, 10 classes)" in message
    assert "block1.layer.0.conv1.weight is 48x16x3x3, expected 16x16x3x3" in message
    assert message.endswith("It fits architecture wide_resnet (depth 10, width 3, 10 classes).")

    message = refusal(path, {"name": "wide_resnet", "depth": 16, "width": 3})
    assert "30 of its 83 keys are missing (block1.layer.1.bn1.weight, " in message
    assert message.endswith("It fits architecture wide_resnet (depth 10, width 3, 10 classes).")

    message = refusal(path, NARROW["wide_resnet"] | {"width": 3}, classes=100)
    assert "2 have another shape (fc.weight is 10x192, expected 100x192; fc.bias is 10, expected 100)" in message
    assert message.endswith("It fits architecture wide_resnet (depth 10, width 3, 10 classes).")

    message = refusal(path, {"name": "resnet", "depth": 18, "width": 64})
    assert re.search(r"keys are unknown \(block1\.layer\.0\.bn1\.weight, .* and \d+ more\)", message)
    assert message.endswith("It fits architecture wide_resnet (depth 10, width 3, 10 classes).")


def test_a_missing_and_an_unknown_key_are_named(tmp_path):
    state = weights()
    state["lineer.weight"] = state.pop("linear.weight")
    torch.save(state, tmp_path / "published.pt")
    message = refusal(tmp_path / "published.pt")
    assert "1 of its 122 keys are missing (linear.weight), 1 keys are unknown (lineer.weight)." in message


def test_a_wrong_architecture_or_source_is_named(tmp_path):
    torch.save(weights(), tmp_path / "published.pt")
    with pytest.raises(UserError, match=r"unknown architecture 'resnett'\. Did you mean 'resnet'"):
        imported(tmp_path / "published.pt", {"name": "resnett"})
    with pytest.raises(UserError, match=r"unknown source 'trades_wrn_34'\. Did you mean 'trades_wrn_34_10'"):
        imported(tmp_path / "published.pt", source="trades_wrn_34")


# --- sha256 ----------------------------------------------------------------------------------------------------------


def test_the_first_import_records_the_hash_and_later_ones_must_match(tmp_path):
    path, sidecar = tmp_path / "published.pt", tmp_path / "published.pt.sha256"
    torch.save(weights(), path)
    _, first = imported(path)
    assert sidecar.read_text() == f"{first}  published.pt\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", sidecar.name], cwd=tmp_path, check=True, capture_output=True)
    assert imported(path)[1] == first
    torch.save(weights(seed=2), path)
    second = hashlib.sha256(path.read_bytes()).hexdigest()
    message = refusal(path)
    assert first in message
    assert second in message
    assert f"remove {sidecar}" in message
    assert imported(path, sha256=second)[1] == second
    sidecar.unlink()
    assert imported(path)[1] == second


def test_a_given_hash_must_match_and_needs_no_sidecar(tmp_path):
    path = tmp_path / "published.pt"
    torch.save(weights(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    message = refusal(path, sha256="0" * 64)
    assert digest in message
    assert "0" * 64 in message
    assert "`sha256:` of the experiment" in message
    imported(path, sha256=digest.upper())
    assert not list(tmp_path.glob("*.sha256"))


def test_the_hash_in_the_table_must_match(tmp_path):
    path = tmp_path / "model_test.pt"
    torch.save(weights(), path)
    message = refusal(path, source="pyautoattack_resnet18")
    assert SOURCES["pyautoattack_resnet18"].sha256 in message
    assert "the table of sources" in message


def test_a_sidecar_that_cannot_be_read_or_written_is_named(tmp_path):
    path, sidecar = tmp_path / "published.pt", tmp_path / "published.pt.sha256"
    torch.save(weights(), path)
    sidecar.write_text("no hash")
    assert f"{sidecar} is not a line as sha256sum writes it" in refusal(path)
    sidecar.unlink()
    sidecar.mkdir()  # permissions would not stop the superuser
    assert f"`sha256: {hashlib.sha256(path.read_bytes()).hexdigest()}`" in refusal(path)


# --- finding and fetching --------------------------------------------------------------------------------------------


def test_where_a_source_is_looked_for(tmp_path):
    assert locate("trades_wrn_34_10", None) == Path("models/model_cifar_wrn.pt")
    assert locate("trades_wrn_34_10", "elsewhere/x.pt") == Path("elsewhere/x.pt")
    assert locate("pyautoattack_resnet18", None).is_file()
    Path("models").mkdir()
    Path("models/model_test.pt").write_bytes(b"x")
    assert locate("pyautoattack_resnet18", None) == Path("models/model_test.pt")
    with pytest.raises(UserError, match="source 'file' needs `file:`"):
        locate("file", None)


@pytest.mark.parametrize("name", ["trades_wrn_34_10", "deepmind_wrn_70_16_cifar100", "rslad_resnet18_cifar10"])
def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(name):
    source = SOURCES[name]
    with pytest.raises(UserError) as caught:
        import_state(name, None, None, source.architecture, SHAPE, CLASSES[source.dataset], download=False)
    assert f"models/{source.file}" in str(caught.value)
    assert (source.url or source.page) in str(caught.value)


def test_a_missing_file_of_ones_own_is_named():
    with pytest.raises(UserError, match=r"source file: nowhere.pt is missing .*: correct `file:`"):
        imported(Path("nowhere.pt"))
    assert not Path("models").exists()


@pytest.fixture
def published(monkeypatch):
    """A source that a server on this machine publishes; the dict says what it answers."""
    answer = {"status": 200, "body": b"", "length": None}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(answer["length"] or len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/published.pt"
        source = KnownCheckpoint(RESNET, "cifar10", None, "published.pt", url, "https://example.org", None, "none")
        monkeypatch.setitem(SOURCES, "published", source)
        yield answer
        server.shutdown()


def test_a_missing_file_is_fetched_once_with_progress(published, capsys):
    stream = io.BytesIO()
    torch.save(weights(), stream)
    published["body"] = stream.getvalue()
    state, digest = import_state("published", None, None, RESNET, SHAPE, 10)
    assert same(state, weights())
    assert Path("models/published.pt").read_bytes() == stream.getvalue()
    printed = capsys.readouterr()
    assert "models/published.pt: " in printed.err
    assert not printed.out
    published["status"] = 500
    assert import_state("published", None, None, RESNET, SHAPE, 10)[1] == digest


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 404}, "HTTP Error 404"),
        ({"body": b"PK\x03\x04", "length": 5000}, "the connection ended after 4 of 5000 bytes"),
    ],
)
def test_a_failed_download_leaves_nothing(published, answer, message):
    published.update(answer)
    with pytest.raises(UserError) as caught:
        import_state("published", None, None, RESNET, SHAPE, 10)
    assert message in str(caught.value)
    assert f"download it from {SOURCES['published'].url} and put it there" in str(caught.value)
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_a_web_page_that_was_fetched_is_named_and_not_recorded(published):
    published["body"] = b"<html>sign in</html>"
    with pytest.raises(UserError, match=r"models/published.pt is a web page"):
        import_state("published", None, None, RESNET, SHAPE, 10)
    assert not Path("models/published.pt.sha256").exists()


# --- a real third-party file -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def from_pyautoattack(tmp_path_factory):
    """The real third-party file, imported, saved as a checkpoint of ours and loaded again."""
    source, path = SOURCES["pyautoattack_resnet18"], tmp_path_factory.mktemp("imported") / "ours.safetensors"
    state, digest = import_state("pyautoattack_resnet18", None, None, source.architecture, SHAPE, 10)
    assert digest == source.sha256
    dataset = {"shape": list(SHAPE), "classes": [str(label) for label in range(10)]}
    save_checkpoint(path, state, {"architecture": source.architecture, "dataset": dataset, "normalisation": None})
    return load_model(path)


def test_the_file_inside_pyautoattack_answers_as_pyautoattacks_own_network(from_pyautoattack):
    """pyautoattack ships the network's code beside the weights: both must answer alike."""
    assert not locate("pyautoattack_resnet18", None).with_suffix(".pt.sha256").exists()
    folder = locate("pyautoattack_resnet18", None).parent
    found = importlib.util.spec_from_file_location("resnet_of_pyautoattack", folder / "resnet.py")
    theirs = importlib.util.module_from_spec(found)
    found.loader.exec_module(theirs)
    network = theirs.ResNet18()
    network.load_state_dict(torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True))
    x = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(from_pyautoattack(x), network.eval()(x))


# --- RobustBench -----------------------------------------------------------------------------------------------------

INSTALLED = importlib.util.find_spec("robustbench") is not None


@pytest.mark.skipif(INSTALLED, reason="robustbench is installed")
def test_without_the_package_the_line_that_installs_it_is_given():
    with pytest.raises(UserError, match=r"pip install -c requirements.txt --editable '\.\[robustbench\]'"):
        import_robustbench("Rice2020Overfitting", "cifar10", "linf")
    with pytest.raises(UserError, match=r"pip install -c requirements.txt --editable '\.\[robustbench\]'"):
        build_model({"name": "robustbench", "model": "Rice2020Overfitting"}, SHAPE, 10)


def test_robustbench_needs_a_name_and_cifar():
    with pytest.raises(UserError, match="needs `model:`"):
        build_model({"name": "robustbench"}, SHAPE, 10)
    with pytest.raises(UserError, match="found 10 classes, images"):
        build_model({"name": "robustbench", "model": "Rice2020Overfitting"}, (1, 28, 28), 10)
    with pytest.raises(UserError, match="unknown data set of RobustBench 'svhn'"):
        import_robustbench("Rice2020Overfitting", "svhn", "linf")
    with pytest.raises(UserError, match="unknown threat of RobustBench 'l1'"):
        import_robustbench("Rice2020Overfitting", "cifar10", "l1")


def test_the_extra_is_pinned_as_the_message_and_the_module_say():
    import tomllib

    from robust_distillation.models import robustbench

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"robustbench=={robustbench.VERSION}" in extras[checkpoints.ROBUSTBENCH]


@pytest.mark.skipif(not INSTALLED, reason="the extra robustbench is not installed")
def test_a_model_of_the_zoo_is_imported_through_its_package(tmp_path):
    from robust_distillation.models import robustbench
    from robust_distillation.pipeline.importing import robustbench_file

    name = "Rice2020Overfitting"
    torch.manual_seed(0)
    network = robustbench.entry(name, "cifar10", "linf")["model"]().eval()
    path = robustbench_file(name, "cifar10", "linf")
    path.parent.mkdir(parents=True)
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    state, architecture = import_robustbench(name, "cifar10", "linf", download=False)
    assert path.with_suffix(".pt.sha256").is_file()
    dataset = {"shape": list(SHAPE), "classes": [str(label) for label in range(10)]}
    save_checkpoint(tmp_path / "ours.safetensors", state, {"architecture": architecture, "dataset": dataset})
    model, x = load_model(tmp_path / "ours.safetensors"), torch.rand(2, *SHAPE)
    with torch.no_grad():
        logits = network(x)
        assert torch.equal(model(x), logits)
        torch.testing.assert_close(model.classifier(model.features(x)), logits)
    x.requires_grad_()
    assert torch.autograd.grad(model.features(x).sum(), x)[0].abs().sum() > 0

    torch.save(Code(), path)
    path.with_suffix(".pt.sha256").unlink()
    with pytest.raises(UserError, match="asks to run"):
        import_robustbench(name, "cifar10", "linf", download=False)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="its file does not fit its network"):
        import_robustbench(name, "cifar10", "linf", download=False)
    path.unlink()
    with pytest.raises(UserError, match=r"drive.google.com/file/d/.* and put it there"):
        import_robustbench(name, "cifar10", "linf", download=False)
    with pytest.raises(UserError, match="is an ensemble"):
        import_robustbench("Chen2020Adversarial", "cifar10", "linf")
    with pytest.raises(UserError, match="Did you mean 'Rice2020Overfitting'"):
        import_robustbench("Rice2020Overfiting", "cifar10", "linf")
