"""Import of published checkpoints: download, verification of the sha256, and conversion of the weights."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.errors import UserError, unknown
from robust_distillation.files import atomic_write, write_text
from robust_distillation.reference.checkpoints import (
    NORMALISATIONS,
    ROBUSTBENCH,
    SOURCES,
    UNUSED_PREFIXES,
    KnownCheckpoint,
    names,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from torch import Tensor

FOLDER = Path("models")
CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer from the server
SETTING = "`sha256:` of the experiment"


def locate(source: str, file: str | None) -> Path:
    """Returns the path of the file of a published checkpoint. The file may be absent.

    The path is `file` if it is set, else models/NAME in the current folder, where NAME is the usual name of the
    source's file, for example models/model_cifar_wrn.pt. A file that an installed Python package contains is taken from
    there if models/NAME does not exist.

    Args:
        source: a name in `reference.checkpoints.SOURCES`, for example `trades_wrn_34_10`, or `file` for your own file.
            Not checked if `file` is set.
        file: path of your own file, `imported.file` of a teacher in the experiment file. None: the usual place.

    Raises:
        UserError: if `file` is None and the source is unknown or has no usual place (`file`, `robustbench`).
    """
    if file is not None:
        return Path(file)
    entry = _entry(source)
    if entry is None:
        raise UserError(f"source {source!r} needs `file:`, the path of a file of weights")
    path = FOLDER / entry.file
    if entry.package and not path.is_file():
        package, _, folder = entry.package.partition("/")
        spec = find_spec(package)
        if spec is not None and spec.origin:
            return Path(spec.origin).parent / folder / entry.file
    return path


def import_state(
    source: str,
    file: str | None,
    sha256: str | None,
    architecture: dict[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    download: bool = True,
    normalisation: dict[str, list[float]] | None = None,
) -> tuple[dict[str, Tensor], str]:
    """Imports the weights of a published checkpoint.

    Downloads the file if it is missing, may be downloaded and `file` is None. The first import of a file without a
    known hash writes its hash to FILE.sha256 (`sha256sum -c` reads it). Later imports compare the file with that hash.

    Args:
        source: a name in `reference.checkpoints.SOURCES`, for example `trades_wrn_34_10`, or `file` for your own file.
        file: path of the file. None: its usual place, see `locate`.
        sha256: expected hash of the file. None: the hash in SOURCES or else in FILE.sha256.
        architecture: the architecture to convert the weights to: `{"name": NAME, **arguments}`, for example `{"name":
            "wide_resnet", "depth": 34, "width": 10}`.
        shape: (C, H, W) of the images.
        classes: number of classes.
        download: whether a missing file may be downloaded from the source's URL.
        normalisation: the normalisation that will be applied to images in [0,1] in front of the model: `{"mean": [...],
            "std": [...]}` with C numbers each. None: no normalisation. A file that contains another normalisation is
            refused, except that of the source.

    Returns:
        The state dict with the key names of the architecture, and the sha256 of the file.

    Raises:
        UserError: if the file is missing and cannot be downloaded, if its hash is wrong, if it is broken, or if its
            tensors do not fit the architecture.
    """
    from robust_distillation.models import weights

    entry, path = _entry(source), locate(source, file)
    if not path.is_file():
        check_source(source, file, download)
        _fetch(path, source, entry)
    expected = sha256 or (entry.sha256 if entry else None)
    authority = SETTING if sha256 else "the table of sources"
    allowed = [one for one in (normalisation, NORMALISATIONS.get(entry.normalisation) if entry else None) if one]
    state, actual, pinned = _read_verified(path, expected, authority, weights.read)
    drop = entry.drop if entry else UNUSED_PREFIXES.get(architecture["name"], ())
    state = weights.convert(state, architecture, shape, classes, path, drop, allowed)
    if not pinned:
        _pin(path, actual)
    return state, actual


def check_source(source: str, file: str | None, download: bool = True) -> None:
    """Checks that the file of a published checkpoint exists or can be downloaded, before any job runs. Downloads
    nothing.

    Args:
        source: a name in `reference.checkpoints.SOURCES`, for example `trades_wrn_34_10`, or `file` for your own file.
        file: path of your own file, `imported.file` of a teacher in the experiment file. A missing file at such a path
            is never downloaded. None: the usual place, see `locate`.
        download: whether a missing file may be downloaded, `dataset.download` of the experiment file.

    Raises:
        UserError: if the source is unknown, or if the file is missing and is not downloaded: because `file` is set, the
            source has no URL, or `download` is False.
    """
    entry, path = _entry(source), locate(source, file)
    if not path.is_file() and (file is not None or entry is None or entry.url is None or not download):
        raise UserError(_absent(path, f"source {source}", (entry.url or entry.page) if entry else None))


def import_robustbench(
    model: str, dataset: str, threat: str, sha256: str | None = None, download: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Imports a model of RobustBench's zoo with RobustBench's own code. Such a model normalises images inside.

    The file is expected at `robustbench_file(model, dataset, threat)` and is downloaded to this path if it is missing.
    The first import without `sha256` writes the hash of the file to FILE.sha256. Later imports compare the file with
    that hash.

    Args:
        model: name in RobustBench's zoo, for example `Carmon2019Unlabeled`.
        dataset: `cifar10` or `cifar100`.
        threat: `linf`, `l2` or `corruptions`.
        sha256: expected hash of the file. None: the hash in FILE.sha256, if that exists.
        download: whether a missing file may be downloaded.

    Returns:
        The state dict, and the architecture to build it with: `{"name": "robustbench", "model": model, "threat":
        threat}`.

    Raises:
        UserError: if RobustBench is not installed, if the model is unknown or not supported, if the file is missing and
            cannot or may not be downloaded, or if its hash or content is wrong.
    """
    import torch

    from robust_distillation.models import robustbench, weights

    entry = robustbench.entry(model, dataset, threat)
    path = robustbench_file(model, dataset, threat)
    if not path.is_file():
        if not download:
            raise UserError(_absent(path, f"RobustBench's {model}", _drive(entry)))
        try:
            with atomic_write(path) as temporary, contextlib.redirect_stdout(sys.stderr):
                robustbench.package().utils.download_gdrive_new(entry["gdrive_id"], str(temporary))
                if not temporary.stat().st_size:
                    raise OSError("the download is empty")
        except Exception as error:  # gdown raises types of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(_absent(path, f"RobustBench's {model}", _drive(entry), reason)) from error
    _, actual, pinned = _read_verified(path, sha256, SETTING, weights.load)
    shape, classes = robustbench.DATASETS[dataset]
    architecture = {"name": ROBUSTBENCH, "model": model, "threat": threat}
    with contextlib.redirect_stdout(sys.stderr):
        network = robustbench.load(model, dataset, threat, FOLDER / ROBUSTBENCH)
    wrapped = robustbench.RobustBenchModel(network)
    for name, tensor in wrapped.state_dict().items():
        weights.check_finite(name, tensor, path)
    wrapped.check(torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)), classes, model)
    if not pinned:
        _pin(path, actual)
    return {name: tensor.detach().clone() for name, tensor in wrapped.state_dict().items()}, architecture


def robustbench_file(model: str, dataset: str, threat: str) -> Path:
    """Returns the path at which RobustBench stores a model, models/robustbench/DATASET/THREAT/MODEL.pt.

    The file may be absent. THREAT is RobustBench's own spelling, for example `Linf`.

    Args:
        model: name in RobustBench's zoo, for example `Carmon2019Unlabeled`.
        dataset: `cifar10` or `cifar100`.
        threat: `linf`, `l2` or `corruptions`.
    """
    from robust_distillation.models.robustbench import THREATS

    return FOLDER / ROBUSTBENCH / dataset / THREATS[threat] / f"{model}.pt"


def _entry(source: str) -> KnownCheckpoint | None:
    """Returns the entry of a source, or None for "file" and "robustbench". Raises UserError for an unknown source."""
    if source not in names():
        raise UserError(unknown("source", source, names()))
    return SOURCES.get(source)


def _fetch(path: Path, source: str, entry: KnownCheckpoint) -> None:
    """Downloads the file of a source to `path` atomically, with progress on stderr. Raises UserError if it fails."""
    request = urllib.request.Request(entry.url, headers={"User-Agent": "robust-distillation"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, atomic_write(path) as temporary:
            total = int(answer.headers.get("Content-Length") or 0)
            done, printed = 0, 0
            with open(temporary, "wb") as stream:
                while chunk := answer.read(CHUNK):
                    done += stream.write(chunk)
                    tenth = 10 * done // total if total else done // (100 * CHUNK)
                    if tenth > printed:
                        printed = tenth
                        of = f" of {total / 1e6:.0f}" if total else ""
                        print(f"{path}: {done / 1e6:.0f}{of} MB", file=sys.stderr, flush=True)
            if done < total:
                raise OSError(f"the connection ended after {done} of {total} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        raise UserError(_absent(path, f"source {source}", entry.url, f"the download failed: {error}")) from error


def _absent(path: Path, what: str, where: str | None, why: str = "no such file") -> str:
    """Returns the message for a missing file. where: URL or page to get it from, or None if there is none."""
    get = f"download it from {where} and put it there" if where else "correct `file:`"
    return f"{what}: {path} is missing ({why}): {get}"


def _drive(entry: dict[str, Any]) -> str:
    """Returns the page of a RobustBench file on Google Drive."""
    return f"https://drive.google.com/file/d/{entry['gdrive_id']}/view"


def _read_verified(path: Path, expected: str | None, authority: str, read: Callable[[BinaryIO, Path], Any]) -> tuple:
    """Verifies the hash of a file and reads the file, without opening it twice, since it may be replaced meanwhile.

    Args:
        path: the file.
        expected: expected sha256, or None for the one in FILE.sha256, if that exists.
        authority: origin of `expected`, for the message.
        read: function that reads the content from the open file.

    Returns:
        The content, the sha256, and whether there was a hash to compare with.

    Raises:
        UserError: if the file cannot be read or has another hash.
    """
    from robust_distillation.models import weights

    try:
        with open(path, "rb") as stream:
            weights.check_kind(stream, path)
            actual, pinned = _verify(stream, path, expected, authority)
            return read(stream, path), actual, pinned
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def _verify(stream: BinaryIO, path: Path, expected: str | None, authority: str) -> tuple[str, bool]:
    """Returns the file's sha256, and whether there was a hash to compare with. Rewinds the stream.

    Raises UserError if the hashes differ. The arguments are those of `_read_verified`.
    """
    actual = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    sidecar = _sidecar(path)
    remedy = f"correct {authority}"
    if expected is None and sidecar.is_file():
        text = sidecar.read_text(encoding="utf-8", errors="replace").strip()
        if not (recorded := re.fullmatch(r"([0-9a-fA-F]{64}) [ *]\S.*", text)):
            raise UserError(
                f"{sidecar} is not a line as sha256sum writes it: remove it, and the next import writes it again"
            )
        expected, authority = recorded[1], f"{sidecar}, written at the first import,"
        remedy = f"remove {sidecar}"
    if expected is not None and expected.lower() != actual:
        raise UserError(
            f"{path}: its sha256 is {actual}, but {authority} says {expected.lower()}. Fetch the file again; if you "
            f"trust this one, {remedy}"
        )
    return actual, expected is not None


def _pin(path: Path, sha256: str) -> None:
    """Writes the hash of a file beside it, for later imports. Raises UserError if that fails."""
    sidecar = _sidecar(path)
    try:
        write_text(sidecar, f"{sha256}  {path.name}\n")
    except OSError as error:
        raise UserError(
            f"{sidecar} cannot be written ({error.strerror or error}), so nothing would notice a changed file: give "
            f"`sha256: {sha256}` in the experiment"
        ) from error


def _sidecar(path: Path) -> Path:
    """Returns the path of the file with the hash of `path`."""
    return Path(f"{os.fspath(path)}.sha256")
