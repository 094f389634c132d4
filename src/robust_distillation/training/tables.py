"""Files of a method's tables (`methods.table.ImageTable`), beside the saved states of a training.

Each saved state adds one file of each table: the rows that changed since the state before. A file never changes, and is
named by the first and last number of the calls of `ImageTable.write` that made its rows. The state has the number of
the call that wrote each row last, so it says which file has the row. A file is removed when neither the newest state
nor the one before has a row in it. So a training that is killed at any moment, also while it saves, goes on with the
rows of the state that is loaded.

With several processes the first one writes the files, and all read them: the folder must be one that all can read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write
from robust_distillation.methods.table import ImageTable

FOLDER = "tables"  # in the folder of the saved states
IDS = "ids"  # names the positions of the rows in a file
DIGEST = hashlib.sha256().digest_size


class TableFiles:
    """The files of all tables of one training.

    The order at a save is: `write`, then the state is written, then `remove_old`.

    Attributes:
        folder: the folder of the files. It need not exist.
        tables: the tables by name.
    """

    def __init__(self, own: nn.ModuleDict, folder: Path):
        """Finds the tables. Reads and writes nothing.

        Args:
            own: the method's own modules by name, some of which may be or hold an ImageTable.
            folder: folder of the files, or where they will be.
        """
        self.folder = folder
        self.tables = {name: module for name, module in own.named_modules() if isinstance(module, ImageTable)}
        self._saved = dict.fromkeys(self.tables, 0)  # number of the last call whose rows are in files
        self._needed: set[Path] = set()  # by the newest state
        self._old: set[Path] = set()  # by the state before

    def load(self, remove: bool = True) -> None:
        """Reads the rows of the state that was loaded before: the buffers of the tables are those of the state. Without
        a state they are those of new tables, and nothing is read.

        Args:
            remove: True: removes files that were written after that state. With several processes the first one does.

        Raises:
            UserError: a file is missing or damaged.
        """
        for name, table in self.tables.items():
            self._saved[name] = int(table.writes)
            missing = table.version > 0
            for path, first, last in self._files(name):
                if last > self._saved[name]:
                    if remove:
                        path.unlink()
                    continue
                if not len(_rows(table, first, last)):
                    continue
                rows = _read(path)
                ids = rows.pop(IDS).to(missing.device)
                current = (table.version[ids] >= first) & (table.version[ids] <= last)  # others changed later
                for key, values in rows.items():
                    table.reserve(key, values)[ids[current]] = values.to(missing.device)[current]
                missing[ids[current]] = False
            if bool(missing.any()):
                raise _damaged(self.folder, f"files with {int(missing.sum())} rows of the table {name} are missing")
        self._needed = self._live()

    def write(self) -> None:
        """Writes the rows that changed since the last call."""
        for name, table in self.tables.items():
            before, now = self._saved[name], int(table.writes)
            ids = _rows(table, before + 1, now)
            if not len(ids):
                continue
            content = save({key: values[ids].cpu() for key, values in table.values.items()} | {IDS: ids.cpu()})
            path = self.folder / f"{name}-{before + 1}-{now}.rows"
            with atomic_write(path) as temporary, temporary.open("wb") as stream:
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
            self._saved[name] = now
        self._old, self._needed = self._needed, self._live()

    def remove_old(self) -> None:
        """Removes the files that neither the newest state nor the one before needs."""
        for name in self.tables:
            for path, _, _ in self._files(name):
                if path not in self._needed | self._old:
                    path.unlink()

    def _live(self) -> set[Path]:
        """Returns the files that have the present value of a row."""
        found = set()
        for name, table in self.tables.items():
            found |= {path for path, first, last in self._files(name) if len(_rows(table, first, last))}
        return found

    def _files(self, name: str) -> list[tuple[Path, int, int]]:
        """Returns the files of a table with the numbers of their first and last call."""
        paths = self.folder.glob(f"{name}-*.rows")
        return [(path, *map(int, path.stem.split("-")[-2:])) for path in paths]


def _rows(table: ImageTable, first: int, last: int) -> Tensor:
    """Returns the positions of the rows that were written last in one of these calls."""
    return ((table.version >= first) & (table.version <= last)).nonzero().flatten()


def _read(path: Path) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
        raise _damaged(path, "its checksum does not fit")
    return load(content[DIGEST:])


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: is damaged ({why}), and the saved state of the training beside it needs it. Remove the folder of the "
        "state; the next start trains from the beginning"
    )
