"""Data as people have it: a folder of pictures, sentences, files of the formats that others write.

Each source is a function `(split, *, ...) -> Dataset`, and the same in a config, told by its `kind`.
Whatever gives encoded pictures by row is one more of them: see `from_encoded`.
"""

from kdjax.data.sources.applied_tokenizer import unlike
from kdjax.data.sources.arrow_files import arrow
from kdjax.data.sources.connected import Joining, connected_words
from kdjax.data.sources.encoded import Encoded, from_encoded
from kdjax.data.sources.folders import folder
from kdjax.data.sources.framing import Frame, framed
from kdjax.data.sources.npz_files import npz
from kdjax.data.sources.options import How
from kdjax.data.sources.recordings import SoundHow, from_recordings, recordings, tfds_sound
from kdjax.data.sources.sentences import lines, text_table, tfds_text
from kdjax.data.sources.splits import AlreadySplit
from kdjax.data.sources.tables import table as csv
from kdjax.data.sources.tars import tar
from kdjax.data.sources.texts import SECOND, TOKENS, TextHow
from kdjax.data.sources.tokenizing import FILE as TOKENIZER
from kdjax.data.sources.tokenizing import Trained
from kdjax.data.sources.tokenizing import read as tokenizer
from kdjax.data.sources.transcribed import TranscriptFiles

__all__ = [
    "SECOND",
    "TOKENIZER",
    "TOKENS",
    "AlreadySplit",
    "Encoded",
    "Frame",
    "How",
    "Joining",
    "SoundHow",
    "TextHow",
    "Trained",
    "TranscriptFiles",
    "arrow",
    "connected_words",
    "csv",
    "folder",
    "framed",
    "from_encoded",
    "from_recordings",
    "lines",
    "npz",
    "recordings",
    "tar",
    "text_table",
    "tfds_sound",
    "tfds_text",
    "tokenizer",
    "unlike",
]
