"""Datasets with random access and stable ids, and the one order in which training reads them."""

from kdjax.data.dataset import Dataset, from_arrays, labelled_rows
from kdjax.data.embedded import digits
from kdjax.data.feed import resident_arrays, resident_feeds, stream_feeds, take
from kdjax.data.order import rows_at
from kdjax.data.prepared import prepared

__all__ = [
    "Dataset",
    "digits",
    "from_arrays",
    "labelled_rows",
    "prepared",
    "resident_arrays",
    "resident_feeds",
    "rows_at",
    "stream_feeds",
    "take",
]
