"""Matrices of items by items: counted from histories, solved in closed form, cut to the strongest neighbours, kept as safetensors.

Owns the memory of it: products and rows are made some at a time, so that a large catalogue fits. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmcore.recommend.recommender import BadRecommender, History

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    Rows = np.ndarray | csr_matrix
    """float32 (n_items, n_items); row i is what item i in a past adds to each item."""

DENSE = 4_096
"""Up to so many items every neighbour is kept (64 MiB); beyond, only the strongest of each item."""
_BLOCK = 512
"""Rows worked on at a time."""
_FORGOTTEN = 1e-3
"""Items of a past that weigh less than this are left out: a long past costs no more than a short one."""


def joined(histories: Sequence[History]) -> np.ndarray:
    """int32: all histories one after another."""
    return np.concatenate([np.empty(0, dtype=np.int32), *histories]).astype(np.int32, copy=False)


def counted(histories: Sequence[History], *, n_items: int) -> np.ndarray:
    """int64 (n_items,): in how many of the histories an item stands."""
    return np.bincount(joined(histories), minlength=n_items).astype(np.int64)


def weighted(histories: Sequence[History], *, n_items: int, recency: float = np.inf) -> csr_matrix:
    """float32 (len(histories), n_items): exp(-age / recency) where a history holds an item, the latest of age 0; 1 each without recency."""
    from scipy.sparse import csr_matrix

    if np.isfinite(recency):
        reach = max(int(np.ceil(-recency * np.log(_FORGOTTEN))), 1)
        histories = [past[-reach:] for past in histories]
    ends = np.cumsum([0, *(len(past) for past in histories)])
    places = joined(histories)
    ages = np.repeat(ends[1:], np.diff(ends)) - 1 - np.arange(len(places))
    return csr_matrix((np.exp(-ages / recency).astype(np.float32), places, ends), shape=(len(histories), n_items))


def followers(histories: Sequence[History], *, n_items: int, lag: int) -> Iterator[tuple[int, csr_matrix]]:
    """(step, float32 (n_items, n_items)) for each step from 1 to lag: how often the column's item came so many places after the row's."""
    from scipy.sparse import csr_matrix

    items = joined(histories)
    person = np.repeat(np.arange(len(histories), dtype=np.int32), [len(past) for past in histories])
    for step in range(1, lag + 1):
        same = person[step:] == person[:-step]
        gone, come = items[:-step][same], items[step:][same]
        yield step, csr_matrix((np.ones(len(gone), dtype=np.float32), (gone, come)), shape=(n_items, n_items))


def together(met: csr_matrix) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, float32 (rows, n_items)) of met.T @ met, how many people met both items, some rows at a time."""
    across = met.T.tocsr()
    for start in range(0, across.shape[0], _BLOCK):
        yield start, (across[start : start + _BLOCK] @ met).toarray()


def inverted(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite float32 matrix, in the matrix's own memory (Cholesky). Raises BadRecommender."""
    from scipy.linalg import lapack

    if not len(matrix):
        return matrix
    factor, failed = lapack.spotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
    inverse, singular = lapack.spotri(factor, lower=0, overwrite_c=1)
    if failed or singular:
        raise BadRecommender("The items' common counts have no inverse.", "Train with a larger regularisation.")
    for start in range(0, len(inverse), _BLOCK):  # LAPACK fills the upper half only
        rows = slice(start, start + _BLOCK)
        inverse[rows, :start] = inverse[:start, rows].T
        square = inverse[rows, rows]
        square[:] = np.triu(square) + np.triu(square, 1).T
    return inverse


def solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """inverse(matrix) @ right for a symmetric positive definite float32 matrix, which is overwritten (Cholesky). Raises BadRecommender."""
    from scipy.linalg import lapack

    if not len(matrix):
        return right
    factor, failed = lapack.spotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
    found, wrong = lapack.spotrs(factor, right, lower=0)
    if failed or wrong:
        raise BadRecommender("The items' transitions have no solution.", "Train with a larger regularisation.")
    return found


def strongest(blocks: Iterable[np.ndarray], n_items: int, *, neighbours: int) -> csr_matrix:
    """float32 (rows, n_items): the `neighbours` largest values by size of each row, ties by number, zeros left out; blocks are changed."""
    from scipy.sparse import csr_matrix, vstack

    kept = [csr_matrix((0, n_items), dtype=np.float32)]
    for block in blocks:
        if neighbours < n_items:
            size = np.abs(block)
            least = np.sort(size, axis=1)[:, -neighbours, None]  # among equals a partition takes fifteen times as long
            above, equal = size > least, size == least
            block[~(above | (equal & (np.cumsum(equal, axis=1) <= neighbours - above.sum(axis=1, keepdims=True))))] = 0
        kept.append(csr_matrix(block))
    return vstack(kept, format="csr", dtype=np.float32)


def spread(found: np.ndarray, kept: np.ndarray, *, n_items: int, neighbours: int) -> Rows:
    """Rows of the `kept` items on the whole catalogue: dense up to DENSE items, the strongest neighbours of each beyond."""
    from scipy.sparse import csr_matrix

    if n_items <= DENSE:
        rows = np.zeros((n_items, n_items), dtype=np.float32)
        rows[np.ix_(kept, kept)] = found
        return rows
    blocks = (found[start : start + _BLOCK].copy() for start in range(0, len(found), _BLOCK))
    near = strongest(blocks, len(kept), neighbours=neighbours)
    lengths = np.zeros(n_items, dtype=np.int64)
    lengths[kept] = np.diff(near.indptr)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((near.data, kept[near.indices].astype(np.int32), ends), shape=(n_items, n_items))


def write_rows(folder: Path, rows: Rows) -> None:
    """<folder>/rows.safetensors."""
    from safetensors.numpy import save_file

    if isinstance(rows, np.ndarray):
        arrays = {"rows": rows}
    else:
        arrays = {"values": rows.data, "places": rows.indices.astype(np.int32), "ends": rows.indptr.astype(np.int64)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "rows.safetensors")


def read_rows(folder: Path, *, n_items: int) -> Rows:
    """What `write_rows` wrote. Raises BadRecommender where it cannot be read, is of other items or holds numbers that are not finite."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from scipy.sparse import csr_matrix

    try:
        arrays = load_file(folder / "rows.safetensors")
        if "rows" in arrays:
            rows = arrays["rows"]
        else:
            rows = csr_matrix((arrays["values"], arrays["places"], arrays["ends"]), shape=(n_items, n_items))
            rows.check_format(full_check=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
    values = rows if isinstance(rows, np.ndarray) else rows.data
    if rows.shape != (n_items, n_items) or not np.isfinite(values).all():
        raise BadRecommender(f"{folder.name} is of other items, or holds numbers that are not finite.", "Train it again.")
    return rows
