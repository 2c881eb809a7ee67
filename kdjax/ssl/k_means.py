"""Clusters of the frames of recordings, which a masked network is asked for."""

from typing import NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Float, Float32

from kdjax.types import BadInput

with epy.lazy_imports():
    from sklearn import cluster

_ITERATIONS = 100


class KMeans(NamedTuple):
    """Clusters of rows whose dimensions have the mean 0 and the deviation 1 over what they are found on.

    Attributes:
      centroids: of each cluster, after that.
      shift: what is subtracted of a dimension.
      scale: what it is then divided by.
    """

    centroids: Float32[np.ndarray, "clusters dim"]
    shift: Float32[np.ndarray, " dim"]
    scale: Float32[np.ndarray, " dim"]


def k_means(rows: Float[np.ndarray, "n dim"], *, clusters: int, seed: int) -> KMeans:
    """The clusters of rows by Lloyd's algorithm from k-means++, in float64; the seed decides.

    `sklearn.cluster.KMeans`; sums are added up in the order of its threads.

    Args:
      rows: any float dtype.
      clusters: how many.
      seed: of the first centroids.

    Raises:
      BadInput: there are not as many different rows.

    Reference: Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494.
    """
    rows = np.asarray(rows, np.float64)
    if len(rows) < clusters or len(np.unique(rows, axis=0)) < clusters:
        raise BadInput(
            "clusters", f"{clusters} of {len(rows)} frames", "give fewer, or more examples"
        )
    shift, scale = rows.mean(0), rows.std(0)
    scale[scale == 0] = 1.0
    found = cluster.KMeans(clusters, max_iter=_ITERATIONS, random_state=seed)
    found.fit((rows - shift) / scale)
    return KMeans(*(np.asarray(x, np.float32) for x in (found.cluster_centers_, shift, scale)))
