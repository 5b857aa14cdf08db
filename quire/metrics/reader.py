"""The series of a `Metrics` as plain objects, for `LLM.get_metrics`.

What moves them is `metrics.engine_stats`; the text form for scrapers is `Metrics.exposition`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Metric:
    """One series: the metric's name, without `_total`, and its labels."""

    name: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Counter(Metric):
    """A number that only grows."""

    value: int


@dataclass(frozen=True)
class Gauge(Metric):
    """A number of now."""

    value: float


@dataclass(frozen=True)
class Histogram(Metric):
    """Observations: how many, their sum, and how many were at most each bound; "+Inf" counts all."""

    count: int
    sum: float
    buckets: dict[str, int] = field(default_factory=dict)


def read_metrics(registry: CollectorRegistry, prefix: str = "vllm:") -> list[Metric]:
    """Every series whose name starts with the prefix, in the order of the registry."""
    found: list[Metric] = []
    for family in registry.collect():
        if not family.name.startswith(prefix):
            continue
        if family.type == "histogram":
            found += _histograms(family.name, family.samples)
            continue
        for sample in family.samples:
            labels = dict(sample.labels)
            if family.type == "counter" and sample.name.endswith("_total"):
                found.append(Counter(family.name, labels, int(sample.value)))
            elif family.type == "gauge":
                found.append(Gauge(family.name, labels, float(sample.value)))
    return found


def read_histogram(registry: CollectorRegistry, name: str) -> Histogram:
    """One histogram by its name, nothing else being read; the first of its sets of labels.

    Raises KeyError if there is none.
    """
    wanted = [f"{name}_{part}" for part in ("bucket", "sum", "count")]
    for family in registry.restricted_registry(wanted).collect():
        for found in _histograms(name, list(family.samples)):
            return found
    raise KeyError(name)


def _histograms(name: str, samples: list[Sample]) -> list[Histogram]:
    """The histograms of one name, one for each set of labels."""
    parts: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    buckets: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
    for sample in samples:
        labels = {key: value for key, value in sample.labels.items() if key != "le"}
        place = tuple(sorted(labels.items()))
        if sample.name == f"{name}_bucket":
            buckets.setdefault(place, {})[sample.labels["le"]] = int(sample.value)
        else:
            parts.setdefault(place, {})[sample.name.removeprefix(f"{name}_")] = sample.value
    return [
        Histogram(name, dict(place), int(values["count"]), float(values["sum"]), buckets[place])
        for place, values in parts.items()
    ]
