"""Data as people have it: a folder of pictures, and files of the formats that others write.

Each source is a function `(split, *, ...) -> Dataset`, and as much in a config, told by its `kind`.
Whatever gives encoded pictures by row is one more of them: see `from_encoded`.
"""

from kdjax.data.sources.encoded import Encoded, from_encoded
from kdjax.data.sources.folders import folder
from kdjax.data.sources.framing import Frame, framed

__all__ = ["Encoded", "Frame", "folder", "framed", "from_encoded"]
