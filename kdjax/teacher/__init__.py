"""The teacher's signals on disk, keyed by (id, view)."""

from kdjax.teacher.cache import TeacherCache, write

__all__ = ["TeacherCache", "write"]
