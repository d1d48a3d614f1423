"""Means over pairs with their uncertainty: bootstrap confidence intervals, and paired differences between methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95


def intervals(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Percentile bootstrap intervals of the means of `values` [pairs, K], by resampling pairs: low and high [2, K].

    The same for the same seed. With one pair an interval has no width, and says nothing.
    """
    rng, count = np.random.default_rng(seed), len(values)
    means = np.array([values[rng.integers(count, size=count)].mean(0) for _ in range(RESAMPLES)])
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0)


def describe(
    pairs: Sequence[Mapping[str, Any]], methods: Sequence[str], metrics: Sequence[str], seed: int
) -> dict[str, Any]:
    """Intervals per method and metric, and the paired difference of every method to each other one.

    `pairs` has a row per method, content and style. Differences are {method: {other: {metric: {"mean", "interval"}}}},
    the method's value minus the other's, over the pairs that both have; below 0 it is better.
    """
    rows: dict[str, dict[tuple[str, str], list[float]]] = {name: {} for name in methods}
    for pair in pairs:
        if pair["method"] in rows:
            rows[pair["method"]][pair["content"], pair["style"]] = [pair[m] for m in metrics]
    values = {name: np.array(list(own.values())) for name, own in rows.items()}

    def gaps(name: str, other: str) -> NDArray[np.float64]:
        both = [key for key in rows[name] if key in rows[other]]
        return np.array([rows[name][key] for key in both]) - np.array([rows[other][key] for key in both])

    differences = {
        name: {
            other: {
                metric: {"mean": mean, "interval": interval}
                for metric, mean, interval in zip(
                    metrics, _plain(gap.mean(0)), _plain(intervals(gap, seed).T), strict=True
                )
            }
            for other in methods
            if other != name
            for gap in [gaps(name, other)]
            if len(gap)
        }
        for name in methods
    }
    own = {name: dict(zip(metrics, _plain(intervals(v, seed).T), strict=True)) for name, v in values.items()}
    return {"confidence": CONFIDENCE, "intervals": own, "differences": differences}


def _plain(array: NDArray[np.float64]) -> list[Any]:
    return np.round(array, 6).tolist()
