"""Thousands of files from strangers, each changed in some way: refused with one message, or as good as the original.

    python tests/fuzz.py [--params 5000] [--files 2000] [--seed 0]

Params files are changed as trees and as texts. Checkpoints, caches, outcomes and states are changed as bytes, in their
headers, and in what they say, with their checksums made again. Searched: another exception, ten seconds without an
answer, a file that was written, values other than the original's that are accepted from a file whose checksum was not
made again.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from bad_input import VALID
from safetensors.torch import save
from test_bad_input import VALUES, mutated, places, scribbled

from robust_distillation.cache.store import CachedValues, cache_key, description_of
from robust_distillation.config import load
from robust_distillation.data.views import ViewScheme
from robust_distillation.digests import canonical
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import read_outcomes, write_outcomes
from robust_distillation.files import sha256, write_json
from robust_distillation.models.checkpoint import KEY, build_model, load_model, read_checkpoint, save_checkpoint
from robust_distillation.planning.plan import describe
from robust_distillation.resume import ResumableJob

SECONDS = 10
HOSTILE = [
    *["../../outside", "/tmp/outside", "a/../../b", "..", "~/x", "$(touch outside)", "`touch outside`", ";touch x"],
    *["x\0y", "x\ny", "\u202e", "a" * 10_000, "!!python/object/apply:os.system [touch outside]", "{{ 1/0 }}", "%s%n"],
    *[10**400, -(10**400), 2**63, 1e308, -1, [[[[[[]]]]]], {"a": {"b": {"c": {}}}}],
]  # fmt: skip
Case = tuple[str, Path, Callable[[], str]]  # what was changed, the file, what reads it and says its values


class Slow(Exception):
    pass


def _slow(*_: object) -> None:
    raise Slow


def hostile(chance: random.Random) -> str:
    """The valid params with names, paths, numbers or keys that mean harm."""
    from ruamel.yaml import YAML

    raw = YAML(typ="safe").load(VALID)
    for _ in range(chance.choice([1, 1, 2])):
        holder, key = chance.choice(list(places(raw)))
        if isinstance(holder, dict) and chance.random() < 0.3:
            text = chance.choice([value for value in HOSTILE if isinstance(value, str)])
            holder[text] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(chance.choice(HOSTILE))
    return json.dumps(raw) if chance.random() < 0.5 else _yaml(raw)


def _yaml(raw: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="safe").dump(raw, text)
    return text.getvalue()


def listing() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def tried(read: Callable[[], Any]) -> tuple[str, Any]:
    """What came of it: `refused`, `accepted`, or what went wrong."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return "accepted", read()
    except UserError as error:
        return ("refused", None) if len(str(error)) < 5000 else ("a message of endless length", None)
    except Slow:
        return f"no answer within {SECONDS} s", None
    except Exception as error:
        return repr(error)[:300], None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz_params(count: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    counted: Counter[str] = Counter()
    faults: list[str] = []
    file = Path("params.yaml")
    for number in range(count):
        change = chance.choice([mutated, scribbled, hostile])
        file.write_text(change(chance), encoding="utf-8", errors="surrogatepass")
        found, _ = tried(lambda: describe(load(str(file))))
        counted[found] += 1
        if found not in ("refused", "accepted") or listing() != {"params.yaml"}:
            faults.append(f"params {number}: {found} {listing()}\n{file.read_text(errors='replace')[:3000]}")
    file.unlink()
    return counted, faults


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return chance.choice([content[:at], content[at:], content[:at] + content[at + chance.choice([1, 8, 100]) :]])


def inserted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + chance.choice([b"\0", b"{", b"\xff" * 8, os.urandom(64), content[:100]]) + content[at:]


def front(content: bytes, chance: random.Random) -> bytes:
    """In the first bytes, where lengths stand."""
    return os.urandom(chance.choice([1, 4, 8])) + content[8:] if chance.random() < 0.5 else struct.pack(
        "<Q", chance.choice([0, 1, 2**31, 2**63, len(content), 100_000_000])
    ) + content[8:]  # fmt: skip


BYTES = [flipped, cut, inserted, front]


def told_otherwise(metadata: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(metadata)
    for _ in range(chance.choice([1, 1, 3])):
        holder, key = chance.choice(list(places(changed)))
        holder[key] = copy.deepcopy(chance.choice([v for v in [*HOSTILE, *VALUES] if _is_json(v)]))
    return changed


def _is_json(value: Any) -> bool:
    try:
        canonical(value)
    except TypeError:
        return False
    return True


def said(model: torch.nn.Module) -> str:
    with torch.no_grad():
        return str(model(torch.zeros(1, 1, 8, 8)).tolist())


def told(state: dict[str, torch.Tensor]) -> str:
    return str(sorted((name, tensor.tolist()) for name, tensor in state.items()))


class Files:
    """One of each kind, and ways to change it."""

    def __init__(self) -> None:
        self.model = build_model({"name": "convnet", "width": 2}, (1, 8, 8), 10, 1)
        dataset = {"name": "digits", "shape": [1, 8, 8], "classes": list("0123456789")}
        self.metadata = {"architecture": {"name": "convnet", "width": 2}, "dataset": dataset, "normalisation": None}
        self.rows = pd.DataFrame({
            "teacher": "t", "student": "s", "method": "m", "seed": 0, "checkpoint": "best", "index": range(30),
            "label": 1,
            "prediction": 1, "block": 0, "attack_seed": 5, "fgsm": [number % 3 == 0 for number in range(30)],
        })  # fmt: skip
        self.key = cache_key("teacher", "data", ViewScheme(1, False), "logits")
        self.values = np.random.default_rng(0).normal(size=(20 * 9, 10)).astype(np.float32)

    def checkpoint(self, chance: random.Random) -> Case:
        file = Path("model.safetensors")
        save_checkpoint(file, self.model.state_dict(), self.metadata)
        change = chance.choice([*BYTES, None])
        if change:
            file.write_bytes(change(file.read_bytes(), chance))
        elif chance.random() < 0.2:  # as others write them
            file.write_bytes(save(self.model.state_dict(), {KEY: json.dumps(chance.choice(VALUES), default=str)}))
        else:
            save_checkpoint(file, self.model.state_dict(), told_otherwise(self.metadata, chance))
        # A model that says otherwise may be right of itself; its values are its own then.
        return "bytes" if change else "told", file, lambda: said(load_model(file)) and told(read_checkpoint(file)[0])

    def outcomes(self, chance: random.Random) -> Case:
        file = Path("outcomes.parquet")
        write_outcomes(file, self.rows)
        if chance.random() < 0.8:
            file.write_bytes(chance.choice(BYTES)(file.read_bytes(), chance))
            return "bytes", file, lambda: read_outcomes([file]).to_csv()
        rows = self.rows.copy()
        rows[chance.choice(list(rows.columns))] = [chance.choice(["x", "../../y", "1"]) for _ in range(len(rows))]
        table = pq.read_table(file).schema.metadata
        rows.to_parquet(file) if chance.random() < 0.5 else write_outcomes(file, rows)
        return ("told" if table else "bytes"), file, lambda: read_outcomes([file]).to_csv()

    def cache(self, chance: random.Random) -> Case:
        file = Path("logits.npy")
        np.save(file, self.values)
        description = {"key": self.key, "shape": [20, 9, 10], "dtype": "float32", "sha256": sha256(file)}
        if chance.random() < 0.5:
            file.write_bytes(chance.choice(BYTES)(file.read_bytes(), chance))
            write_json(description_of(file), description)
            return "bytes", file, lambda: self._cached(file)
        if chance.random() < 0.3:
            np.save(file, np.array([{"x": 1}], dtype=object), allow_pickle=True)
            description["sha256"] = sha256(file)
        elif chance.random() < 0.5:
            file.write_bytes(chance.choice(BYTES)(file.read_bytes(), chance))
            description["sha256"] = sha256(file)
        write_json(description_of(file), told_otherwise(description, chance))
        return "told", file, lambda: self._cached(file)

    def _cached(self, file: Path) -> str:
        values = CachedValues(file, self.key)
        return str(values(torch.arange(20), torch.zeros(20, dtype=torch.int64)).tolist())

    def state(self, chance: random.Random) -> Case:
        folder = Path("work")
        with tempfile.TemporaryDirectory() as place:
            work = ResumableJob(Path(place), {"a": 1}, 1)
            work.save(b"what was done" * 20)
            file = folder / work.state_folder.name / "state"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.choice(BYTES)((work.state_folder / "state").read_bytes(), chance))
        return "bytes", file, lambda: _loaded(folder)

    def expected(self) -> dict[str, str]:
        rows = Path("expected.parquet")
        write_outcomes(rows, self.rows)
        text = read_outcomes([rows]).to_csv()
        rows.unlink()
        return {
            "checkpoint": told(self.model.state_dict()), "outcomes": text, "state": str(b"what was done" * 20),
            "cache": str(torch.from_numpy(self.values.reshape(20, 9, 10)[:, 0]).tolist()),
        }  # fmt: skip


def _loaded(folder: Path) -> str:
    found = ResumableJob(folder, {"a": 1}, 1).load()
    if found is None:
        raise UserError("set aside")
    return str(found)


def fuzz_files(count: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    counted: Counter[str] = Counter()
    faults: list[str] = []
    files = Files()
    expected = files.expected()
    for number in range(count):
        kind = ("checkpoint", "outcomes", "cache", "state")[number % 4]
        how, file, read = getattr(files, kind)(chance)
        before = listing()
        found, values = tried(read)
        counted[f"{kind} {found}"] += 1
        wrong = found == "accepted" and how == "bytes" and values != expected[kind]
        written = listing() - before - {str(path) for path in file.parent.glob("*.broken")}
        if found not in ("refused", "accepted") or wrong or written:
            faults.append(f"{kind} {number} ({how}): {found} {'other values' if wrong else ''} {written}")
        for path in sorted(Path().rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    return counted, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=int, default=5000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _slow)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder).parent
        inside = Path(folder) / "here"
        inside.mkdir()
        os.chdir(inside)
        before = {path.name for path in outside.glob("outside*")}
        counted, faults = fuzz_params(options.params, random.Random(options.seed))
        more, others = fuzz_files(options.files, random.Random(options.seed))
        written = {path.name for path in outside.glob("outside*")} - before
        written |= {path.name for path in Path(folder).iterdir()} - {"here"}
        os.chdir("/")
    faults += others + [f"written outside: {name}" for name in written]
    for fault in faults[:10]:
        print(fault)
    print(f"{options.params} params files: {', '.join(f'{count} {what}' for what, count in sorted(counted.items()))}")
    print(f"{options.files} files: {', '.join(f'{count} {what}' for what, count in sorted(more.items()))}")
    print(f"{len(faults)} faults, {time.monotonic() - began:.0f} s")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
