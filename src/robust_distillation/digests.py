"""Hashes JSON values: the text of a value is the same wherever and whenever it is written."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Formats a JSON value as text that is the same for equal values: with sorted keys and without spaces.

    Args:
        value: a value of dicts, lists, texts, numbers, booleans and None. Tuples count as lists.

    Returns:
        The JSON text, for example `{"a":1,"b":[2,3]}`.

    Raises:
        TypeError: if the value cannot be written as JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """Computes the sha256 of a JSON value.

    Args:
        value: a value of dicts, lists, texts, numbers, booleans and None. Equal values have equal hashes, whatever the
            order of their keys.

    Returns:
        64 hexadecimal digits.

    Raises:
        TypeError: if the value cannot be written as JSON.
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()
