"""Data as people have it: a folder of pictures, and files of the formats that others write.

Each source is a function `(split, *, ...) -> Dataset`, and the same in a config, told by its `kind`.
Whatever gives encoded pictures by row is one more of them: see `from_encoded`.
"""

from kdjax.data.sources.arrow_files import arrow
from kdjax.data.sources.encoded import Encoded, from_encoded
from kdjax.data.sources.folders import folder
from kdjax.data.sources.framing import Frame, framed
from kdjax.data.sources.npz_files import npz
from kdjax.data.sources.options import How
from kdjax.data.sources.splits import AlreadySplit
from kdjax.data.sources.tables import table as csv
from kdjax.data.sources.tars import tar

__all__ = [
    "AlreadySplit",
    "Encoded",
    "Frame",
    "How",
    "arrow",
    "csv",
    "folder",
    "framed",
    "from_encoded",
    "npz",
    "tar",
]
