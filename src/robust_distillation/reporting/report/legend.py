"""How each method looks in every chart: a colour and a shape, so that it is known in black and white, too."""

from __future__ import annotations

from collections.abc import Iterable

from robust_distillation.reporting.report.elements import Key

COLOURS = 8  # --m0 to --m7 in style.css, one set for light pages and one for dark ones
SHAPES = (  # within [-1, 1], as Vega scales them
    "M.9,0A.9,.9,0,1,1,-.9,0A.9,.9,0,1,1,.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.75H-1Z",
    "M0,-1.1L1.1,0L0,1.1L-1.1,0Z",
    "M-1,-.35H-.35V-1H.35V-.35H1V.35H.35V1H-.35V.35H-1Z",
    "M0,1L1,-.75H-1Z",
    "M-1,-.75L.75,0L-1,.75Z",
)
STAR = "M0,-1.2L.3,-.4L1.15,-.37L.48,.16L.71,.97L0,.5L-.71,.97L-.48,.16L-1.15,-.37L-.3,-.4Z"
TEACHER = "teacher"  # its label in charts


def legend(methods: Iterable[str], teacher: bool = True) -> list[Key]:
    """In the order of the experiment, the teacher first."""
    keys = [Key(TEACHER, "currentColor", STAR)] if teacher else []
    # 7 shapes beside 8 colours: no two of 56 methods look alike.
    return keys + [
        Key(name, f"var(--m{place % COLOURS})", SHAPES[place % len(SHAPES)]) for place, name in enumerate(methods)
    ]
