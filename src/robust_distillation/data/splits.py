"""Division of training files into a training and a validation split, for datasets that publish no validation split.

The validation split is the last 5,000 training images in file order (500 for STL-10). If the number of training images
differs from the published one, the validation split is the last tenth of them, at least one image. That can only happen
with your own files (`verify: false`): with `verify: true`, files of other sizes are refused.
"""

from __future__ import annotations


def validation_size(train: int, official: dict[str, int] | None = None) -> int:
    """Computes the number of validation images, which are the last of the training files.

    Args:
        train: number of images in the training files, validation included.
        official: published sizes of the splits "train" and "validation", such as
            `{"train": 45000, "validation": 5000}`, or None if nothing is published.

    Returns:
        The published validation size if `train` equals the sum of the published sizes. Otherwise a tenth of `train`,
        rounded down, at least 1.

    Raises:
        ValueError: if `train` is less than 2, so that no image would remain for training.
    """
    if train < 2:
        raise ValueError(f"it holds {train} training images, at least two are needed")
    if official is not None and train == official["train"] + official["validation"]:
        return official["validation"]
    return max(1, train // 10)


def split_slice(split: str, count: int, official: dict[str, int] | None = None) -> slice:
    """Returns the slice of the images of a dataset's files that belongs to a split.

    Args:
        split: "train", "validation" or "test".
        count: number of images in the files: in the test files for "test", else in the training files, which hold the
            validation images too.
        official: published sizes of the splits "train" and "validation", such as
            `{"train": 45000, "validation": 5000}`, or None if nothing is published.

    Returns:
        A slice into the `count` images in file order: all for "test", the first for "train", the last for "validation".

    Raises:
        ValueError: if the split is not "test" and there are fewer than two images.
    """
    if split == "test":
        return slice(0, count)
    cut = count - validation_size(count, official)
    return slice(0, cut) if split == "train" else slice(cut, count)


def sizes(train: int, test: int, official: dict[str, int] | None = None) -> dict[str, int]:
    """Computes the number of images of each split of a dataset that publishes no validation split.

    Args:
        train: number of images in the training files, validation included.
        test: number of images in the test files.
        official: published sizes of the splits "train" and "validation", such as
            `{"train": 45000, "validation": 5000}`, or None if nothing is published.

    Returns:
        The sizes, such as `{"train": 45000, "validation": 5000, "test": 10000}`.

    Raises:
        ValueError: if there are fewer than two training images.
    """
    validation = validation_size(train, official)
    return {"train": train - validation, "validation": validation, "test": test}
