"""Hashes JSON values: the text of a value is the same wherever and whenever it is written."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Returns JSON that is the same text for the same value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """Returns the sha256 of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
