"""Datasets whose authors publish files: where torchvision keeps them, how they get there, whether they are whole.

Addresses and checksums are torchvision's (a test compares them); they stand here so that a job need not import it.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from robust_distillation.data import splits
from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.errors import UserError
from robust_distillation.files import replacing

PATIENCE = 60  # seconds without a byte after which a download has failed


@dataclass(frozen=True)
class Source:
    """One file at the base URL: a .tar.gz that holds `files`, a .gz of the only one of them, or that file itself."""

    name: str
    md5: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """The files of a dataset, all of them below FOLDER/`below`."""

    dataset: str
    url: str  # of the folder of the sources
    sources: tuple[Source, ...]
    below: str = ""
    md5: dict[str, str] = field(default_factory=dict)  # of unpacked files, where torchvision knows them

    def place(self, options: DataOptions) -> Path:
        return Path(options.folder) / self.below

    def missing(self, options: DataOptions) -> list[Path]:
        paths = [self.place(options) / name for source in self.sources for name in source.files]
        return [path for path in paths if not path.is_file()]

    def check(self, options: DataOptions, otherwise: str = "") -> None:
        """Raises UserError where files are missing and may not be fetched. Reads nothing, writes nothing.

        otherwise: one more way to get the files, which the message then names.
        """
        if options.mirror is not None and not options.mirror.startswith(("http://", "https://")):
            raise UserError(
                f"dataset.mirror: {options.mirror!r} is not the address of a web server (http:// or https://); "
                "files that lie in a folder are read where dataset.folder is that folder"
            )
        absent = [source for source in self._incomplete(options) if not (self.place(options) / source.name).is_file()]
        if absent and not options.download:
            raise UserError(
                f"dataset {self.dataset}: {self.missing(options)[0]} is missing. "
                f"{self._by_hand(absent, options)}{otherwise}, or set dataset.download: true"
            )

    def fetch(self, options: DataOptions) -> None:
        """Places missing files, out of a source that lies in its place already or else out of a download.

        A killed download leaves no file behind that a later start would take for a whole one.
        """
        self.check(options)
        for source in self._incomplete(options):
            given = self.place(options) / source.name
            if given.is_file():
                if options.verify:
                    self._compare(given, given, source.md5)
                self._unpack(source, given, given, options)
                continue
            with self.reading(self.place(options)):
                self.place(options).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self.place(options)) as folder:
                fetched, url = Path(folder) / source.name, self._url(source, options)
                self._download(source, url, Path(folder), options)
                self._unpack(source, fetched, url, options)

    def verified(self, name: str, options: DataOptions) -> Path:
        """The path of a file. Raises UserError where it is not the published one and `options.verify` asks for it."""
        path = self.place(options) / name
        if options.verify and name in self.md5:
            self._compare(path, path, self.md5[name])
        return path

    def described(
        self, facts: DatasetInfo, options: DataOptions, train: list[str], test: str, images: Callable[[Path], int]
    ) -> DatasetInfo:
        """`facts` at the size asked for and with the sizes of the files that are there (see splits.py).

        train, test: the files that hold images; images(path): how many.
        """
        facts = facts.resized(options.size)
        paths = [self.place(options) / name for name in (*train, test)]
        if options.verify or not all(path.is_file() for path in paths):
            return facts
        counts = []
        for path in paths:
            with self.reading(path):
                counts.append(_counted(images, path, path.stat().st_size, path.stat().st_mtime_ns))
        with self.reading(self.place(options)):
            return replace(facts, sizes=splits.sizes(sum(counts[:-1]), counts[-1], facts.sizes))

    def part(self, split: str, found: int, facts: DatasetInfo, options: DataOptions) -> slice:
        """Which of the `found` images of the training or test files are the split (see splits.py)."""
        with self.reading(self.place(options)):
            return splits.part(split, found, facts.sizes)

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Whatever a parser raises on a broken file becomes one message that names the file."""
        try:
            yield
        except Exception as error:
            said = f"{error}" or type(error).__name__
            if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the content's
                raise UserError(f"dataset {self.dataset}: {path}: {said}") from error
            raise UserError(
                f"dataset {self.dataset}: {path} cannot be read ({said.rstrip('.')}). Replace it, or remove it and let "
                "it be fetched again"
            ) from error

    def _incomplete(self, options: DataOptions) -> list[Source]:
        """The sources that give some missing file."""
        missing = set(self.missing(options))
        return [source for source in self.sources if missing & {self.place(options) / name for name in source.files}]

    def _url(self, source: Source, options: DataOptions) -> str:
        return f"{(options.mirror or self.url).rstrip('/')}/{source.name}"

    def _by_hand(self, sources: list[Source], options: DataOptions) -> str:
        names = ", ".join(source.name for source in sources)
        return f"By hand: put {names} from {self.url} into {self.place(options)}, to be unpacked from there"

    def _download(self, source: Source, url: str, folder: Path, options: DataOptions) -> None:
        from torchvision.datasets.utils import download_url

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # urllib's own is none: a server that falls silent would hold the job
        try:
            download_url(url, folder, source.name, md5=source.md5 if options.verify else None)
        except Exception as error:  # network, server, disk or checksum, in many types
            if isinstance(error, RuntimeError) and options.verify:  # torchvision's word for a wrong checksum
                self._compare(folder / source.name, url, source.md5)
            raise UserError(
                f"dataset {self.dataset}: {url} could not be downloaded ({error or type(error).__name__}). "
                f"{self._by_hand([source], options)}, or name another server in dataset.mirror"
            ) from error
        finally:
            socket.setdefaulttimeout(before)

    def _compare(self, path: Path, name: Path | str, md5: str) -> None:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            raise UserError(
                f"dataset {self.dataset}: {name} is not the published file (md5 {found}, torchvision knows {md5}). "
                "Remove it and fetch it again, or set dataset.verify: false where it is your own"
            )

    def _unpack(self, source: Source, path: Path, name: Path | str, options: DataOptions) -> None:
        """Places the source's missing files; nothing else that lies in it. name: what messages call it."""
        wanted = {file: self.place(options) / file for file in source.files}
        wanted = {file: target for file, target in wanted.items() if not target.is_file()}
        with self.reading(name):
            if source.name.endswith(".tar.gz"):
                with tarfile.open(path, "r|gz") as archive:
                    for member in archive:
                        name_inside = member.name.removeprefix("./")
                        if member.isfile() and name_inside in wanted:
                            _write(archive.extractfile(member), wanted.pop(name_inside))
                        if not wanted:
                            break
            elif source.name.endswith(".gz"):
                with gzip.open(path) as stream:
                    _write(stream, wanted.pop(source.files[0]))
            else:
                with open(path, "rb") as stream:
                    _write(stream, wanted.pop(source.files[0]))
            if wanted:
                raise ValueError(f"it holds no {next(iter(wanted))}")


def _write(stream, path: Path) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)


@cache
def _counted(images: Callable[[Path], int], path: Path, size: int, changed: int) -> int:
    """How many images a file holds, counted once for each of its states."""
    return images(path)
