"""Counters and histograms that cost a fraction of a microsecond: they are moved for every streamed token.

The metrics client asks them for their numbers when somebody scrapes; gauges and HTTP metrics are its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class CounterSeries(Collector):
    """A counter with constant labels and at most one label of a few known values. For one thread.

    values  of `label`; ("",) where there is none.
    """

    def __init__(
        self,
        name: str,
        help: str,
        constant: Mapping[str, str],
        label: str = "",
        values: Sequence[str] = ("",),
    ) -> None:
        self._name, self._help = name, help
        self._names = [*constant, *([label] if label else [])]
        self._constant = list(constant.values())
        self._has_label = bool(label)
        self.amounts = dict.fromkeys(values, 0.0)

    def add(self, amount: float, value: str = "") -> None:
        """Adds to the series with this value of the label. Raises KeyError for an unknown one."""
        self.amounts[value] += amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family, for a scrape."""
        family = CounterMetricFamily(self._name, self._help, labels=self._names)
        for value, amount in self.amounts.items():
            family.add_metric([*self._constant, *([value] if self._has_label else [])], amount)
        yield family

    describe = collect  # by which a scrape of one name finds it


class HistogramSeries(Collector):
    """A histogram with constant labels. For one thread.

    bounds  upper limits of the buckets, rising; infinity is added.
    """

    def __init__(
        self, name: str, help: str, constant: Mapping[str, str], bounds: Sequence[float]
    ) -> None:
        self._name, self._help = name, help
        self._names, self._constant = list(constant), list(constant.values())
        self._bounds = [float(bound) for bound in bounds if bound != float("inf")]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, amount: float, times: int = 1) -> None:
        """Puts a value in, `times` times."""
        self._counts[bisect_left(self._bounds, amount)] += times
        self._sum += amount * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family, for a scrape."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._names)
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*self._bounds, float("inf")], self._counts, strict=True):
            total += count
            buckets.append((str(floatToGoString(bound)), total))  # type: ignore[no-untyped-call]
        family.add_metric(self._constant, buckets=buckets, sum_value=self._sum)
        yield family

    describe = collect
