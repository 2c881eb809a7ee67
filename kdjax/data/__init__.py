"""Datasets with random access and stable ids, and the one order in which training reads them."""

from kdjax.data.arrays import from_arrays, from_fields
from kdjax.data.dataset import Dataset
from kdjax.data.embedded import digits
from kdjax.data.feed import join_partners, resident_arrays, resident_feeds, stream_feeds, take
from kdjax.data.grouped import Widths, cut
from kdjax.data.hidden_tokens import Tokens, each_hidden, of_tokens
from kdjax.data.ids import unique_ids
from kdjax.data.labels import labelled_rows
from kdjax.data.order import Partners, rows_at
from kdjax.data.prepared import prepared
from kdjax.data.random_access import from_source
from kdjax.data.seen import Kept
from kdjax.data.several import Several
from kdjax.data.targets import UNLABELLED, Classes, Tags, Target, Values, Vectors
from kdjax.data.transcripts import Transcripts, transcripts_of
from kdjax.data.unlabelled import Unlabelled

__all__ = [
    "UNLABELLED",
    "Classes",
    "Dataset",
    "Kept",
    "Partners",
    "Several",
    "Tags",
    "Target",
    "Tokens",
    "Transcripts",
    "Unlabelled",
    "Values",
    "Vectors",
    "Widths",
    "cut",
    "digits",
    "each_hidden",
    "from_arrays",
    "from_fields",
    "from_source",
    "join_partners",
    "labelled_rows",
    "of_tokens",
    "prepared",
    "resident_arrays",
    "resident_feeds",
    "rows_at",
    "stream_feeds",
    "take",
    "transcripts_of",
    "unique_ids",
]
