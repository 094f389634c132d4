"""Published checkpoints: found or fetched, their sha256 checked, their weights put under our names."""

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
from robust_distillation.files import replacing, write_text
from robust_distillation.reference.checkpoints import NORMALISATIONS, ROBUSTBENCH, SOURCES, UNUSED, Source, names

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from torch import Tensor

FOLDER = Path("models")
CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer
SAID = "`sha256:` of the experiment"


def locate(source: str, file: str | None) -> Path:
    """Where the file of a source lies or is to lie: where the person says, else in models/, else, for one that comes
    with an installed package, there. Reads nothing; the file may be absent. Raises UserError for an unknown source."""
    if file is not None:
        return Path(file)
    entry = _entry(source)
    if entry is None:
        raise UserError(f"source {source!r} needs `file:`, the path of a file of weights")
    path = FOLDER / entry.file
    if entry.package and not path.is_file():
        package, _, folder = entry.package.partition("/")
        found = find_spec(package)
        if found is not None and found.origin:
            return Path(found.origin).parent / folder / entry.file
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
    """The checked state dict with our names, and the sha256 of the file it came from.

    source: a name in SOURCES, or "file" for a person's own `file`. sha256: what the file must have; by default the one
    in SOURCES, else the one that the first import wrote beside the file, to FILE.sha256 (`sha256sum -c` reads it).
    shape: (C, H, W) of the images. download: whether a missing file may be fetched where a URL is known. normalisation:
    the mean and std (C each, of images in [0,1]) that will stand in front of the model; a file that carries its own is
    refused where they differ. Raises UserError, with what to do, where anything is not as it should be.
    """
    from robust_distillation.models import weights

    entry, path = _entry(source), locate(source, file)
    if not path.is_file():
        check_source(source, file, download)
        _fetch(path, source, entry)
    expected = sha256 or (entry.sha256 if entry else None)
    said_by = SAID if sha256 else "the table of sources"
    allowed = [one for one in (normalisation, NORMALISATIONS.get(entry.normalisation) if entry else None) if one]
    state, found, pinned = _checked(path, expected, said_by, weights.read)
    drop = entry.drop if entry else UNUSED.get(architecture["name"], ())
    state = weights.fit(state, architecture, shape, classes, path, drop, allowed)
    if not pinned:
        _pin(path, found)
    return state, found


def check_source(source: str, file: str | None, download: bool = True) -> None:
    """Raises UserError where the file of a source is missing and cannot or may not be fetched. Reads nothing."""
    entry, path = _entry(source), locate(source, file)
    if not path.is_file() and (file is not None or entry is None or entry.url is None or not download):
        raise UserError(_absent(path, f"source {source}", (entry.url or entry.page) if entry else None))


def import_robustbench(
    model: str, dataset: str, threat: str, sha256: str | None = None, download: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A model of RobustBench's zoo through its package, which knows the quirks of each: its state dict, and the
    architecture that `models/robustbench.py` builds it with. Its normalisation is inside.

    model: the name in the zoo. dataset: cifar10 or cifar100. threat: linf, l2 or corruptions. The file lies at
    `robustbench_file(...)`; its sha256 is checked as in `import_state`. Raises UserError.
    """
    import torch

    from robust_distillation.models import robustbench, weights

    entry = robustbench.entry(model, dataset, threat)
    path = robustbench_file(model, dataset, threat)
    if not path.is_file():
        if not download:
            raise UserError(_absent(path, f"RobustBench's {model}", _drive(entry)))
        try:
            with replacing(path) as temporary, contextlib.redirect_stdout(sys.stderr):
                robustbench.package().utils.download_gdrive_new(entry["gdrive_id"], str(temporary))
                if not temporary.stat().st_size:
                    raise OSError("nothing came")
        except Exception as error:  # gdown raises its own kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(_absent(path, f"RobustBench's {model}", _drive(entry), reason)) from error
    _, found, pinned = _checked(path, sha256, SAID, weights.load)
    shape, classes = robustbench.DATASETS[dataset]
    architecture = {"name": ROBUSTBENCH, "model": model, "threat": threat}
    with contextlib.redirect_stdout(sys.stderr):
        network = robustbench.load(model, dataset, threat, FOLDER / ROBUSTBENCH)
    wrapped = robustbench.Wrapped(network)
    for name, tensor in wrapped.state_dict().items():
        weights.check_finite(name, tensor, path)
    wrapped.check(torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)), classes, model)
    if not pinned:
        _pin(path, found)
    return {name: tensor.detach().clone() for name, tensor in wrapped.state_dict().items()}, architecture


def robustbench_file(model: str, dataset: str, threat: str) -> Path:
    """Where RobustBench's package keeps a model below models/robustbench."""
    from robust_distillation.models.robustbench import THREATS

    return FOLDER / ROBUSTBENCH / dataset / THREATS[threat] / f"{model}.pt"


def _entry(source: str) -> Source | None:
    if source not in names():
        raise UserError(unknown("source", source, names()))
    return SOURCES.get(source)


def _fetch(path: Path, source: str, entry: Source) -> None:
    """Writes the file to `path`, whole or not at all, with progress on stderr."""
    request = urllib.request.Request(entry.url, headers={"User-Agent": "robust-distillation"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, replacing(path) as temporary:
            total = int(answer.headers.get("Content-Length") or 0)
            done, shown = 0, 0
            with open(temporary, "wb") as stream:
                while chunk := answer.read(CHUNK):
                    done += stream.write(chunk)
                    tenth = 10 * done // total if total else done // (100 * CHUNK)
                    if tenth > shown:
                        shown = tenth
                        of = f" of {total / 1e6:.0f}" if total else ""
                        print(f"{path}: {done / 1e6:.0f}{of} MB", file=sys.stderr, flush=True)
            if done < total:
                raise OSError(f"the connection ended after {done} of {total} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        raise UserError(_absent(path, f"source {source}", entry.url, f"the download failed: {error}")) from error


def _absent(path: Path, what: str, where: str | None, why: str = "no such file") -> str:
    get = f"download it from {where} and put it there" if where else "correct `file:`"
    return f"{what}: {path} is missing ({why}): {get}"


def _drive(entry: dict[str, Any]) -> str:
    return f"https://drive.google.com/file/d/{entry['gdrive_id']}/view"


def _checked(path: Path, expected: str | None, said_by: str, read: Callable[[BinaryIO, Path], Any]) -> tuple:
    """What `read` finds in a file whose hash was checked first, that hash, and whether anything said what it must be.
    One open file throughout: it may be replaced meanwhile."""
    from robust_distillation.models import weights

    try:
        with open(path, "rb") as stream:
            weights.check_kind(stream, path)
            found, pinned = _verified(stream, path, expected, said_by)
            return read(stream, path), found, pinned
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def _verified(stream: BinaryIO, path: Path, expected: str | None, said_by: str) -> tuple[str, bool]:
    """The file's sha256, and whether anything said what it must be. Leaves the stream at its start."""
    found = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    sidecar = _sidecar(path)
    remedy = f"correct {said_by}"
    if expected is None and sidecar.is_file():
        text = sidecar.read_text(encoding="utf-8", errors="replace").strip()
        if not (recorded := re.fullmatch(r"([0-9a-fA-F]{64}) [ *]\S.*", text)):
            raise UserError(
                f"{sidecar} is not a line as sha256sum writes it: remove it, the next import writes it anew"
            )
        expected, said_by = recorded[1], f"{sidecar}, written at the first import,"
        remedy = f"remove {sidecar}"
    if expected is not None and expected.lower() != found:
        raise UserError(
            f"{path}: its sha256 is {found}, but {said_by} says {expected.lower()}. Fetch the file again; if you trust "
            f"this one, {remedy}"
        )
    return found, expected is not None


def _pin(path: Path, found: str) -> None:
    sidecar = _sidecar(path)
    try:
        write_text(sidecar, f"{found}  {path.name}\n")
    except OSError as error:
        raise UserError(
            f"{sidecar} cannot be written ({error.strerror or error}), so nothing would notice a changed file: give "
            f"`sha256: {found}` in the experiment"
        ) from error


def _sidecar(path: Path) -> Path:
    return Path(f"{os.fspath(path)}.sha256")
