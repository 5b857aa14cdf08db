"""The count by which somebody outside sees that arithmetic moves."""

from __future__ import annotations

import ctypes

import pytest

from quire.hardware import pulse
from quire.ops.cpu.checks import check
from quire.ops.cpu.library import library


def _count() -> int:
    return ctypes.c_uint64.from_address(pulse.address()).value


def test_native_calls_are_counted() -> None:
    found = library()
    if found is None:
        pytest.skip("there is no native library for this machine")
    before = _count()
    check(found.run)
    assert _count() > before + 4


def test_calls_of_other_providers_are_counted() -> None:
    from quire.ops.linear import LINEAR
    from quire.ops.registry import Table

    bound = Table(overrides={"linear": "reference"}).bind(LINEAR, "float32", N=4, K=4)
    before = _count()
    with pytest.raises(TypeError):
        bound()
    assert _count() == before + 1
