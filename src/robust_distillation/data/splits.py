"""Which images are train, validation and test where the files hold only training and test images.

The validation split is the end of the training images in file order: 5,000 of them (500 of STL-10). Files of one's
own (`verify: false`) may hold other numbers of images than the published ones. Then the numbers found rule: the last
tenth of the training images, at least one, is the validation split, and `info` reports the sizes found once the files
are there, the official ones before. With `verify: true` files of other sizes are refused.
"""

from __future__ import annotations


def held_out(found: int, official: dict[str, int] | None = None) -> int:
    """How many of `found` training images, at their end, are the validation split.

    Raises ValueError where nothing would be left to train on.
    """
    if found < 2:
        raise ValueError(f"of training images it holds {found}, two are the least")
    if official is not None and found == official["train"] + official["validation"]:
        return official["validation"]
    return max(1, found // 10)


def part(split: str, found: int, official: dict[str, int] | None = None) -> slice:
    """Which of the `found` images of the training files (of the test files for `test`) are the split."""
    if split == "test":
        return slice(0, found)
    cut = found - held_out(found, official)
    return slice(0, cut) if split == "train" else slice(cut, found)


def sizes(train: int, test: int, official: dict[str, int] | None = None) -> dict[str, int]:
    """Images per split where the files hold `train` training and `test` test images."""
    validation = held_out(train, official)
    return {"train": train - validation, "validation": validation, "test": test}
