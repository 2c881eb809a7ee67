"""What a teacher says of every view of every example: kept once, bound to what it is of."""

from kdjax.teacher.cache import TeacherCache
from kdjax.teacher.signals import (
    Apart,
    Embedding,
    Logits,
    Positions,
    Signal,
    TopK,
    Values,
    Vector,
    check,
    describe,
)
from kdjax.teacher.storage import Folder, Part
from kdjax.teacher.writer import NotFinite, write

__all__ = [
    "Apart",
    "Embedding",
    "Folder",
    "Logits",
    "NotFinite",
    "Part",
    "Positions",
    "Signal",
    "TeacherCache",
    "TopK",
    "Values",
    "Vector",
    "check",
    "describe",
    "write",
]
