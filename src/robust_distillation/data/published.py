"""Download, verification and unpacking of dataset files that their authors publish.

File names, addresses and checksums are those of torchvision (a test compares them). They are repeated here so that a
job need not import torchvision.
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
from robust_distillation.files import atomic_write

TIMEOUT = 60  # seconds without a byte after which a download has failed


@dataclass(frozen=True)
class Download:
    """File to download, and the dataset files that it contains.

    Attributes:
        name: name of the file at the dataset's base URL. A name ending in .tar.gz is an archive of `files`. One ending
            in .gz is the compressed form of the single file in `files`. Any other is that single file.
        md5: checksum of the downloaded file, 32 hexadecimal digits.
        files: paths of the unpacked files, relative to the dataset's folder.
    """

    name: str
    md5: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class PublishedFiles:
    """Published files of one dataset: what to download, and where the unpacked files lie.

    A module of a dataset makes one instance and delegates to it. In the arguments, `options` is a DataOptions: `folder`
    of the datasets, `size` of the images, `download`, `verify` (checksums) and `mirror` (base URL in place of `url`).

    Attributes:
        dataset: name of the dataset, for messages.
        url: base URL of the downloads.
        sources: the files to download.
        below: subfolder of DataOptions.folder in which the files lie; "" for that folder. The two together are called
            the dataset's folder.
        md5: checksums of unpacked files, 32 hexadecimal digits, by path relative to the dataset's folder. Files for
            which torchvision has no checksum are absent.
    """

    dataset: str
    url: str
    sources: tuple[Download, ...]
    below: str = ""
    md5: dict[str, str] = field(default_factory=dict)

    def folder(self, options: DataOptions) -> Path:
        """Returns the dataset's folder, in which downloads and unpacked files lie. It may be absent.

        Args:
            options: only `folder` is used.

        Returns:
            The path `options.folder`/`below`.
        """
        return Path(options.folder) / self.below

    def missing(self, options: DataOptions) -> list[Path]:
        """Returns the paths of the unpacked files that do not exist.

        Args:
            options: only `folder` is used.

        Returns:
            The paths, in the order of `sources`. Empty if all files exist.
        """
        paths = [self.folder(options) / name for source in self.sources for name in source.files]
        return [path for path in paths if not path.is_file()]

    def check(self, options: DataOptions, otherwise: str = "") -> None:
        """Checks that every unpacked file exists or may be downloaded. Reads and writes no file.

        A missing file is also accepted if the download that contains it lies in the dataset's folder.

        Args:
            options: `folder`, `download` and `mirror` are used.
            otherwise: text about one more way to get the files, appended to the error message, such as
                `, or install Debian's package dataset-fashion-mnist`.

        Raises:
            UserError: if a file is missing, must be downloaded and `options.download` is False, or if `options.mirror`
                is not a web address (http:// or https://).
        """
        if options.mirror is not None and not options.mirror.startswith(("http://", "https://")):
            raise UserError(
                f"dataset.mirror: {options.mirror!r} is not the address of a web server (http:// or https://). To use "
                "files in a local folder, set dataset.folder to that folder"
            )
        absent = [source for source in self._incomplete(options) if not (self.folder(options) / source.name).is_file()]
        if absent and not options.download:
            raise UserError(
                f"dataset {self.dataset}: {self.missing(options)[0]} is missing. "
                f"{self._by_hand(absent, options)}{otherwise}, or set dataset.download: true"
            )

    def fetch(self, options: DataOptions) -> None:
        """Unpacks the missing files into the dataset's folder, and downloads what is needed for that.

        A download that lies in the dataset's folder already is unpacked from there and stays. Other downloads are
        removed after unpacking. A process killed meanwhile leaves no partial file under a final name.

        Args:
            options: `folder`, `download`, `mirror`, and `verify`: whether the checksums of downloads are compared.

        Raises:
            UserError: if a file is missing and may not be downloaded, if a download fails, or if a file is broken or
                has the wrong checksum.
        """
        self.check(options)
        for source in self._incomplete(options):
            local = self.folder(options) / source.name
            if local.is_file():
                if options.verify:
                    self._compare(local, local, source.md5)
                self._unpack(source, local, local, options)
                continue
            with self.reading_errors(self.folder(options)):
                self.folder(options).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self.folder(options)) as folder:
                fetched, url = Path(folder) / source.name, self._url(source, options)
                self._download(source, url, Path(folder), options)
                self._unpack(source, fetched, url, options)

    def verified_path(self, name: str, options: DataOptions) -> Path:
        """Returns the path of an unpacked file, after comparing its checksum with the published one.

        The checksum is compared only if `options.verify` is True and torchvision publishes one for the file. Otherwise
        the file is not opened and may be absent.

        Args:
            name: path of the file relative to the dataset's folder, such as `cifar-10-batches-py/test_batch`.
            options: `folder` and `verify` are used.

        Returns:
            The path.

        Raises:
            UserError: if the checksum differs, or if it is to be compared and the file cannot be read.
        """
        path = self.folder(options) / name
        if options.verify and name in self.md5:
            try:
                self._compare(path, path, self.md5[name])
            except OSError as error:
                raise UserError(f"dataset {self.dataset}: {path} cannot be read ({error})") from error
        return path

    def adapted_info(
        self, facts: DatasetInfo, options: DataOptions, train: list[str], test: str, images: Callable[[Path], int]
    ) -> DatasetInfo:
        """Adapts the published info of the dataset to the options and to the files that exist.

        Args:
            facts: the published info: image shape, classes and split sizes.
            options: `size`, `folder` and `verify` are used.
            train: paths of the unpacked files that hold the training images, relative to the dataset's folder.
            test: path of the unpacked file that holds the test images, relative to the dataset's folder.
            images: function that maps the path of a file to the number of images in it. It may raise any exception for
                a broken file.

        Returns:
            The info with images of `options.size` pixels. The split sizes are the published ones if `options.verify` is
            True or a file is missing. Otherwise they are counted in the files, with the published number of validation
            images if the total is the published one, else a tenth of the training images.

        Raises:
            UserError: if a file is broken or holds too few images.
        """
        facts = facts.with_size(options.size)
        paths = [self.folder(options) / name for name in (*train, test)]
        if options.verify or not all(path.is_file() for path in paths):
            return facts
        counts = []
        for path in paths:
            with self.reading_errors(path):
                counts.append(_count_images(images, path, path.stat().st_size, path.stat().st_mtime_ns))
        with self.reading_errors(self.folder(options)):
            return replace(facts, sizes=splits.sizes(sum(counts[:-1]), counts[-1], facts.sizes))

    def split_slice(self, split: str, count: int, facts: DatasetInfo, options: DataOptions) -> slice:
        """Returns the positions of a split within the images of its files.

        Args:
            split: "train", "validation" or "test".
            count: number of images in the files: the test files for "test", else the training files.
            facts: the published info of the dataset; only its split sizes are used.
            options: only `folder` is used, for the error message.

        Returns:
            A slice into the `count` images in file order. The validation images are the last of the training files.

        Raises:
            UserError: if there are fewer than two training images.
        """
        with self.reading_errors(self.folder(options)):
            return splits.split_slice(split, count, facts.sizes)

    @contextmanager
    def reading_errors(self, path: Path) -> Iterator[None]:
        """Context manager: turns any exception raised in its block into a UserError that names the dataset and a path.

        Args:
            path: file or folder to name in the message.
        """
        try:
            yield
        except Exception as error:
            reason = f"{error}" or type(error).__name__
            if isinstance(error, OSError) and error.errno is not None:  # the fault of the disk, not of the content
                raise UserError(f"dataset {self.dataset}: {path}: {reason}") from error
            raise UserError(
                f"dataset {self.dataset}: {path} cannot be read ({reason.rstrip('.')}). Replace it, or remove it and "
                "let it be fetched again"
            ) from error

    def _incomplete(self, options: DataOptions) -> list[Download]:
        """Returns the sources that contain a missing file."""
        missing = set(self.missing(options))
        return [source for source in self.sources if missing & {self.folder(options) / name for name in source.files}]

    def _url(self, source: Download, options: DataOptions) -> str:
        return f"{(options.mirror or self.url).rstrip('/')}/{source.name}"

    def _by_hand(self, sources: list[Download], options: DataOptions) -> str:
        """Returns the part of a message that tells how to place the files by hand."""
        names = ", ".join(source.name for source in sources)
        return f"By hand: put {names} from {self.url} into {self.folder(options)}, to be unpacked from there"

    def _download(self, source: Download, url: str, folder: Path, options: DataOptions) -> None:
        """Downloads a source from `url` to `folder`/source.name and compares its checksum. Raises UserError."""
        from torchvision.datasets.utils import download_url

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT)  # urllib has no timeout by default: a silent server would block the job
        try:
            download_url(url, folder, source.name, md5=source.md5 if options.verify else None)
        except Exception as error:  # errors of network, server, disk or checksum have many types
            if isinstance(error, RuntimeError) and options.verify:  # what torchvision raises for a wrong checksum
                self._compare(folder / source.name, url, source.md5)
            raise UserError(
                f"dataset {self.dataset}: {url} could not be downloaded ({error or type(error).__name__}). "
                f"{self._by_hand([source], options)}, or name another server in dataset.mirror"
            ) from error
        finally:
            socket.setdefaulttimeout(before)

    def _compare(self, path: Path, name: Path | str, md5: str) -> None:
        """Raises UserError if the checksum of the file at `path` is not `md5`. name: the file's name in the message."""
        with open(path, "rb") as stream:
            actual = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if actual != md5:
            raise UserError(
                f"dataset {self.dataset}: {name} is not the published file (md5 {actual}, torchvision knows {md5}). "
                "Remove it and fetch it again, or set dataset.verify: false if it is your own"
            )

    def _unpack(self, source: Download, path: Path, name: Path | str, options: DataOptions) -> None:
        """Extracts the missing files of a source, and no other files. Raises UserError for a broken file.

        path: the downloaded file. name: the file's name in messages.
        """
        wanted = {file: self.folder(options) / file for file in source.files}
        wanted = {file: target for file, target in wanted.items() if not target.is_file()}
        with self.reading_errors(name):
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
    """Copies a stream to a file, replacing the file at once."""
    with atomic_write(path) as temporary, open(temporary, "wb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)


@cache
def _count_images(images: Callable[[Path], int], path: Path, size: int, changed: int) -> int:
    """Returns `images(path)`, cached as long as the file's size and modification time stay the same."""
    return images(path)
