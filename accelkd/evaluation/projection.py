"""Two-dimensional maps of embeddings by t-SNE (van der Maaten and Hinton 2008), as in the paper's figure 3."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

MIN_MAPPED = 4  # segments


def tsne(x: npt.NDArray[np.float32], *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Map `[segments, width]` to `[segments, 2]`, from the principal components on; one map per seed.

    Raises ValueError for fewer than four segments.
    """
    if len(x) < MIN_MAPPED:
        raise ValueError(f"a map needs at least {MIN_MAPPED} segments, not {len(x)}")
    perplexity = min(30.0, (len(x) - 1) / 3)
    out: npt.NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
    return out
