"""Level shifts: has a key's news stood lower for days than it used to, so that no single burst explains it?

Tested over the last 2 to 6 days against all that came before them (a likelihood ratio over starts; Lai 1995, JRSS B 57): more
negative stories than expected, or a lower mean net score; and still so without the strongest 24 h, and still so now. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fmcore.sentiment.expectation import Columns, Expectation, tail

BLOCK_S = 12 * 3600
SHIFT_BLOCKS = (4, 6, 8, 12)
"""A shift is looked for over so many half days."""
STAYS, STILL = 0.05, 0.3
"""What is left of a shift without its strongest 24 h must be as improbable as the first, and its last 24 h as the second."""
MIN_SHIFT_STORIES = 12
MIN_SHIFT = 0.15
"""A fall of the mean net score below this is no alert, however sure."""
LEVEL_VARIES = 0.01
"""Squared coefficient of variation of a key's usual level between weeks."""
OWN_PRIOR_STORIES = 150.0
"""So many stories pull a key's exposure over days toward the market's: a company has busier weeks, by about an eighth."""


def shift_tails(columns: Columns, expect: Expectation, *, block: int, bucket_s: int, floor: int, warmup_s: int) -> np.ndarray:
    """(stretches, keys): p of "no shift"; 1 where the index fell by little, over few stories, or the key is too new."""
    edges = [block * k for k in range(SHIFT_BLOCKS[-1] + 1)]
    names = ("level_x", "level_of", "level_sq", "level_other", "level_usual", "net", "n")
    x, exposure, squared, other, usual_other, net, n = (np.diff(columns.back(name, edges), axis=0) for name in names)
    widths = [edges[k] for k in SHIFT_BLOCKS]
    rates, known = expect.negative_rate(widths)
    usuals, rests_on = expect.usual_net(widths)
    variance, dispersion = expect.net_variance(), float(np.median(expect.dispersion()))  # a shift would pass for scatter of its own key
    out = []
    for i, blocks in enumerate(SHIFT_BLOCKS):
        part, rate, usual = slice(0, blocks), rates[i], usuals[i]
        seen = other[part].sum(axis=0) + OWN_PRIOR_STORIES
        rate = rate * seen / (usual_other[part].sum(axis=0) + OWN_PRIOR_STORIES)
        unsure = 1 / (known[i] + 1.0) + 1 / seen + LEVEL_VARIES
        more = partial(_more, x[part], rate * exposure[part], rate**2 * squared[part] * dispersion, unsure)
        lower = partial(_lower, net[part], n[part], usual, variance, variance / (rests_on[i] + 10.0) + LEVEL_VARIES / 10)
        p_more = _stays(more, x[part] - rate * exposure[part])
        p_lower = _stays(lower, n[part] * usual - net[part])
        stories = n[part].sum(axis=0)
        enough = (stories >= MIN_SHIFT_STORIES) & (usual - net[part].sum(axis=0) / np.maximum(stories, 1e-9) >= MIN_SHIFT)
        enough &= (x[part].sum(axis=0) >= floor) & (columns["seen_s"] >= warmup_s + blocks * block * bucket_s)
        out.append(np.where(enough, np.minimum(1.0, 2 * np.minimum(p_more, p_lower)), 1.0))
    return np.array(out)


def _stays(test: Callable[[np.ndarray], np.ndarray], excess: np.ndarray) -> np.ndarray:
    """p of the whole stretch, or 1 where one burst makes it or where it is over. Blocks run from the latest to the oldest."""
    last = np.zeros((len(excess), 1))
    last[:2] = 1.0
    return np.where((test(_without_strongest(excess)) < STAYS) & (test(last) < STILL), test(np.ones_like(last)), 1.0)


def _more(x: np.ndarray, mu: np.ndarray, beyond: np.ndarray, unsure: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """P of so many negative stories in the blocks kept."""
    expected = (keep * mu).sum(axis=0)
    return tail((keep * x).sum(axis=0), expected, (keep * beyond).sum(axis=0) + expected**2 * unsure)


def _lower(net: np.ndarray, n: np.ndarray, usual: np.ndarray, variance: np.ndarray, unsure: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """P of so low a mean net score in the blocks kept (normal)."""
    from scipy.special import ndtr

    stories = np.maximum((keep * n).sum(axis=0), 1e-9)
    return ndtr(((keep * net).sum(axis=0) / stories - usual) / np.sqrt(variance / stories + unsure))


def _without_strongest(excess: np.ndarray) -> np.ndarray:
    """(blocks, keys) of 1 and 0: 0 where the two neighbouring blocks of the largest excess stand."""
    pairs = (excess[1:] + excess[:-1]).argmax(axis=0)
    keep = np.ones_like(excess)
    keys = np.arange(excess.shape[1])
    keep[pairs, keys] = keep[pairs + 1, keys] = 0.0
    return keep
