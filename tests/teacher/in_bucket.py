"""Writes, reads, stops and spoils a cache in a bucket; what came of it goes out as JSON.

A process of its own: the driver of `gs://` looks for its server once.
"""

import json
import sys

from kdjax.teacher import Folder
from tests.teacher.caches import Teacher, is_right, refused, written


class _Stops(Teacher):
    def __call__(self, rows, view):
        if len(self.asked) == 7:
            raise InterruptedError
        return super().__call__(rows, view)


def main(folder: str) -> None:
    stopped, went_on = _Stops(), Teacher()
    try:
        written(folder, ask=stopped)
    except InterruptedError:
        begun = Folder(folder).names()
    written(folder, ask=went_on)
    assert is_right(folder)

    files = Folder(folder)
    lines = {}
    for name in files.names():
        right = files.read(name)
        files.write(name, right[:-1] + bytes([right[-1] ^ 1]))
        lines[f"{name} flipped"] = refused(folder)
        files.delete(name)
        lines[f"{name} missing"] = refused(folder)
        files.write(name, right)
    files.write("stranger", b"1")
    lines["stranger"] = refused(folder)
    files.delete("stranger")
    assert is_right(folder)
    said = {"begun": begun, "asked": [stopped.asked, went_on.asked], "lines": lines}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
