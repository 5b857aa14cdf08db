"""Which blocks the heads of an indexer pick, against the plain formula in float64, and attention over them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from quire.ops.block_picks import BLOCK_ATTENTION, PICK_BLOCKS
from quire.ops.cpu import library
from quire.ops.registry import Signature, load_all, providers
from quire.ops.tolerances import TOLERANCES
from tests.ops.attention_cases import Cache, Sequence, Shape, draw, stored, whole
from tests.ops.test_picks import accepted, at_once, compare

load_all()
PICKERS, ATTENDERS = providers(PICK_BLOCKS), providers(BLOCK_ATTENTION)
INDEX = Shape(heads=2, kv_heads=1, head_size=24, value_size=0)
HEADS = Shape(heads=4, kv_heads=2, head_size=40, value_size=24)
LENGTHS = [1, 30, 77, 1060]
SIZE, LOCAL, COUNT = 16, 2, 4
FORMATS = ["plain", "fp8", "int8_per_token_head"]
ISAS = library.usable()


@pytest.fixture(params=["reference", *ISAS])
def provider(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs by the definition, and by the kernels of every instruction set."""
    if request.param == "reference":
        yield "reference"
        return
    with library.using(request.param):
        yield "cpu"


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def picks_of(
    provider: str,
    shape: Shape,
    sequences: list[Sequence],
    counts: list[list[int]],
    local: int = LOCAL,
    size: int = SIZE,
) -> list[torch.Tensor]:
    """Picks [n, H, COUNT] of all tokens of each sequence, computed in steps of `counts` tokens each."""
    cache = Cache(PICKERS[provider], shape, sequences)
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    for step in zip(*counts, strict=True):
        rows = [row for row, count in enumerate(step) if count]
        q = cache.prepare(rows, [step[row] for row in rows])
        picks = torch.empty(len(q), shape.heads, COUNT, dtype=torch.int32)
        cache.provider.run(q, cache.cache, cache.plan, size=size, local=local, picks=picks)
        for row, part in zip(rows, picks.split([step[row] for row in rows]), strict=True):
            found[row].append(part.clone())
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize(
    ("format", "local", "size"),
    [
        *(("plain", local, size) for local, size in ((0, 16), (1, 24), (2, 128))),
        *((format, LOCAL, SIZE) for format in FORMATS),
    ],
)
def test_the_best_blocks_are_picked(provider: str, format: str, local: int, size: int) -> None:
    shape = Shape(**vars(INDEX) | {"format": format})
    sequences = draw(shape, LENGTHS)
    found = picks_of(provider, shape, sequences, at_once(LENGTHS), local, size)
    for sequence, picks in zip(sequences, found, strict=True):
        each = torch.einsum("qhd,kd->qhk", sequence.q.double(), stored(shape, sequence.k)[:, 0])
        for query, of_heads in enumerate(picks):
            own, seen = query // size, min(query // size + 1, COUNT)
            for head, row in enumerate(of_heads):
                assert (row[:seen].diff() > 0).all() and (row[seen:] == -1).all()
                chosen = set(row[:seen].tolist())
                assert {block for block in range(own, own - local, -1) if block >= 0} <= chosen
                best = [
                    float(each[query, head, first : min(first + size, query + 1)].max())
                    for first in range(0, query + 1, size)
                ]
                free = [block for block in range(own + 1) if block <= own - local]
                left = max((best[one] for one in set(free) - chosen), default=-math.inf)
                taken = min((best[one] for one in set(free) & chosen), default=math.inf)
                assert taken >= left - 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_chunks_and_block_size_change_no_pick(
    provider: str, dtype: str, threads: None
) -> None:
    shape = Shape(**vars(INDEX) | {"dtype": getattr(torch, dtype)})
    sequences = draw(shape, LENGTHS)
    torch.set_num_threads(1)
    wanted = [
        picks_of(provider, shape, [one], [[n]])[0]
        for one, n in zip(sequences, LENGTHS, strict=True)
    ]
    cut = [[0, 1, 0], [29, 0, 1], [13, 40, 24], [600, 457, 3]]
    for count, block_size in ((2, shape.block_size), (3, 64), (1, 8)):
        torch.set_num_threads(count)
        one = Shape(**vars(shape) | {"block_size": block_size})
        found = picks_of(provider, one, sequences, cut)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_of_equal_scores_the_earlier_block_is_picked(provider: str) -> None:
    (sequence,) = draw(INDEX, [130])
    sequence.q.zero_()
    (found,) = picks_of(provider, INDEX, [sequence], [[130]], local=1)
    assert found[129].tolist() == 2 * [[0, 1, 2, 8]]


def test_scores_that_are_no_numbers_harm_no_other_row(provider: str) -> None:
    sequences = draw(INDEX, [90, 90])
    (clean,) = picks_of(provider, INDEX, sequences[1:], [[90]])
    sequences[0].k[[3, 20]] = math.nan
    broken, same = picks_of(provider, INDEX, sequences, [[90], [90]])
    assert torch.equal(same, clean)
    assert (broken[80:, :, :2] == torch.tensor([0, 1])).all()


@pytest.mark.skipif(not ISAS, reason="there is no native library here")
def test_more_scores_than_are_kept_at_once() -> None:
    """Rounds: 1,500 queries with 6 heads by up to 750 blocks."""
    shape = Shape(**vars(INDEX) | {"heads": 6, "head_size": 8})
    (sequence,) = draw(shape, [1500])
    (found,) = picks_of("cpu", shape, [sequence], [[1500]], 1, 2)
    (again,) = picks_of("cpu", shape, [sequence], [[700, 1, 798, 1]], 1, 2)
    assert torch.equal(found, again)


def some_blocks(length: int, heads: int, count: int = COUNT, local: int = 1) -> torch.Tensor:
    """Picks [length, heads, count] drawn at random, the own block among them, as `pick_blocks` writes them.

    local  0: the own block is picked as others are.
    """
    generator = torch.Generator().manual_seed(length)
    found = torch.full((length, heads, count), -1, dtype=torch.int32)
    for query in range(length):
        for head in range(heads):
            own = query // SIZE
            order = torch.randperm(own + 1 - local, generator=generator)[: count - local]
            order = torch.cat((order, torch.tensor([own] * local, dtype=torch.int64))).sort().values
            found[query, head, : len(order)] = order.to(torch.int32)
    return found


def attended(
    provider: str,
    shape: Shape,
    sequences: list[Sequence],
    picks: list[torch.Tensor],
    last: int | None = None,
) -> list[torch.Tensor]:
    """[n, H, Dv] of all tokens of each sequence, or of its last ones."""
    lengths = [len(sequence.q) for sequence in sequences]
    cache, rows = Cache(ATTENDERS[provider], shape, sequences), [*range(len(sequences))]
    counts = [min(length, last or length) for length in lengths]
    if last is not None:
        cache.prepare(rows, [length - count for length, count in zip(lengths, counts, strict=True)])
    q = cache.prepare(rows, counts)
    chosen = torch.cat([one[-count:] for one, count in zip(picks, counts, strict=True)])
    how = {"size": SIZE, "scale": shape.scale}
    out = cache.provider.run(q, chosen, cache.cache, cache.plan, **how)
    return list(out.split(counts))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("local", [0, 1])
def test_attention_sees_the_picked_blocks_alone(
    provider: str, dtype: str, format: str, local: int
) -> None:
    assert provider in accepted(ATTENDERS, dtype, format)
    shape = Shape(**vars(HEADS) | {"dtype": getattr(torch, dtype), "format": format})
    lengths = [1, 40, 150]
    sequences = draw(shape, lengths)
    picks = [some_blocks(length, shape.kv_heads, local=local) for length in lengths]
    found = attended(provider, shape, sequences, picks)
    line = "block_attention" if provider == "reference" else "paged_attention, rounded weights"
    for sequence, chosen, mixed in zip(sequences, picks, found, strict=True):
        count, group = len(sequence.q), shape.heads // shape.kv_heads
        keys, values = (stored(shape, one) for one in (sequence.k, sequence.v))
        blocks = torch.arange(count) // SIZE
        seen = (chosen.unsqueeze(-1) == blocks).any(2) & torch.ones(count, count).tril().bool()[
            :, None
        ]
        keys, values = (one.repeat_interleave(group, 1) for one in (keys, values))
        each = torch.einsum("qhd,khd->qhk", sequence.q.double(), keys) * shape.scale
        each = each.masked_fill(~seen.repeat_interleave(group, 1), -math.inf).softmax(-1)
        want = torch.einsum("qhk,khd->qhd", each, values)
        compare(mixed, want, TOLERANCES[line][dtype])


def test_company_changes_no_bit_of_attention(provider: str) -> None:
    lengths = [33, 90]
    sequences, picks = draw(HEADS, lengths), [some_blocks(length, 2) for length in lengths]
    together = attended(provider, HEADS, sequences, picks)
    alone = [
        attended(provider, HEADS, [one], [chosen])[0]
        for one, chosen in zip(sequences, picks, strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.skipif(not ISAS, reason="there is no native library here")
@pytest.mark.parametrize("local", [0, 1])
@pytest.mark.parametrize("isa", ISAS)
def test_steps_threads_and_block_sizes_change_no_bit_of_attention(
    isa: str, local: int, threads: None
) -> None:
    """Three segments of picked tokens; a decode step shares them out among threads."""
    shape, length = Shape(**vars(HEADS) | {"dtype": torch.bfloat16}), 2700
    sequences, picks = draw(shape, [length]), [some_blocks(length, 2, 140, local)]
    torch.set_num_threads(1)
    with library.using(isa):
        (wanted,) = attended("cpu", shape, sequences, picks)
        for count, block_size, last in ((2, 16, 1), (3, 64, 1), (3, 8, 40), (2, 128, length)):
            torch.set_num_threads(count)
            one = Shape(**vars(shape) | {"block_size": block_size})
            found = attended("cpu", one, sequences, picks, last)[0]
            assert torch.equal(found, wanted[-last:]), (count, block_size, last)


@pytest.mark.skipif(not ISAS, reason="there is no native library here")
def test_all_blocks_picked_is_plain_attention_bit_for_bit() -> None:
    sequences = draw(HEADS, [70])
    (found,) = attended("cpu", HEADS, sequences, [some_blocks(70, 2, 5)])
    assert torch.equal(found, whole("cpu", HEADS, sequences[0]))


@pytest.mark.skipif(not ISAS, reason="there is no native library here")
def test_blocks_that_kernels_cannot_read_are_left_to_the_definition() -> None:
    refusal = ATTENDERS["cpu"].accepts(Signature("float32", {"S": 24}))
    assert refusal == "it reads 16 neighbouring tokens at once, and blocks have 24"
