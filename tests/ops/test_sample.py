"""The operations of sampling: against formulas and outside references, and bit for bit in any batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from quire.ops.cpu import library
from quire.ops.logprobs import TOP_LOGPROBS
from quire.ops.philox import philox4x32
from quire.ops.pieces import (
    LANES,
    PIECE,
    count_above,
    ids_from,
    in_pieces,
    kth_best,
    log_sum_exp,
    weights,
)
from quire.ops.registry import Op, Table, load_all, providers
from quire.ops.sample import (
    ARGMAX,
    DIVIDE_ROWS,
    FILTER_ROWS,
    GUMBEL_DRAW,
    SAMPLE_ROWS,
)
from quire.ops.sample_edits import (
    ADD_BIAS,
    BAN_IDS,
    KEEP_IDS,
    MASK_BITS,
    PENALIZE,
)

INF = math.inf
SIZES = (5, 1023, 1024, 4099, 50_257)
OPS = (
    ARGMAX, MASK_BITS, KEEP_IDS, ADD_BIAS, BAN_IDS, PENALIZE, DIVIDE_ROWS, FILTER_ROWS, GUMBEL_DRAW,
    TOP_LOGPROBS, SAMPLE_ROWS,
)  # fmt: skip
load_all()
BODIES = ["reference", *(f"cpu-{isa}" for isa in library.usable())]
EVERY = [(op, body) for op in OPS for body in BODIES]
every_body = pytest.mark.parametrize("body", BODIES)


def noise(*shape: int, seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def run(op: Op, *args: object, body: str = "reference", **kwargs: object):
    """One provider's result; those of the native library on the instruction set that `body` names."""
    name, _, isa = body.partition("-")
    with library.using(isa) if isa else nullcontext():
        return providers(op)[name].run(*args, **kwargs)


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# Philox


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter: str, key: str, words: str) -> None:
    """Known answers of Random123's kat_vectors, as numbers and as tensors."""
    c = [int(word, 16) for word in counter.split()]
    k = tuple(int(word, 16) for word in key.split())
    want = [int(word, 16) for word in words.split()]
    assert list(philox4x32(tuple(c), k)) == want
    tensors = tuple(torch.full((70,), word) for word in c)
    for word, wanted in zip(philox4x32(tensors, k), want):
        assert torch.equal(word, torch.full((70,), wanted))


# Values


@pytest.mark.parametrize("size", SIZES)
@every_body
def test_argmax_takes_the_lowest_of_equal_ids(size: int, body: str) -> None:
    x = noise(6, size)
    x[1] = x[1].round()
    x[2] = 1.0
    x[3, -1] = 99.0
    x[4, size // 2] = x[4, -1] = 99.0
    x[5] = -INF
    found, best = run(ARGMAX, x, body=body)
    for row in range(6):
        assert best[row] == float(x[row].max())
        assert found[row] == int((x[row] == x[row].max()).nonzero()[0])
    assert run(ARGMAX, x, [4, 1], body=body) == ([found[4], found[1]], [best[4], best[1]])
    assert run(ARGMAX, x, [], body=body) == ([], [])


@every_body
@pytest.mark.parametrize("size", SIZES)
def test_argmax_shows_what_is_not_finite(size: int, body: str) -> None:
    x = noise(4, size)
    x[0, size - 1] = math.nan
    x[1, 0] = INF
    x[2] = -INF
    best = run(ARGMAX, x, body=body)[1]
    assert math.isnan(best[0]) and best[1] == INF and best[2] == -INF and math.isfinite(best[3])


@every_body
@pytest.mark.parametrize("size", SIZES)
def test_mask_bits_leave_the_ids_whose_bit_is_set(size: int, body: str) -> None:
    x = noise(3, size)
    allowed = noise(size, seed=1).numpy() > 0
    words = np.zeros(-(-size // 32), dtype=np.uint32)
    for token_id in np.flatnonzero(allowed):
        words[token_id // 32] |= np.uint32(1 << (token_id % 32))
    want = x.clone()
    want[1][torch.from_numpy(~allowed)] = -INF
    run(MASK_BITS, x, [1], [words], body=body)
    assert torch.equal(x, want)
    run(MASK_BITS, x, [1], [words.view(np.int32)], body=body)
    assert torch.equal(x, want)


@every_body
def test_kept_banned_and_biased_ids(body: str) -> None:
    x = noise(4, 9)
    before = x.clone()
    run(KEEP_IDS, x, [0, 2], [ids(3), ids(8, 1)], body=body)
    assert torch.isfinite(x).nonzero().tolist()[:1] == [[0, 3]]
    assert torch.isfinite(x[2]).nonzero()[:, 0].tolist() == [1, 8]
    assert torch.equal(x[2][[1, 8]], before[2][[1, 8]])
    assert torch.equal(x[[1, 3]], before[[1, 3]])
    run(BAN_IDS, x, [1], [ids(0, 4)], body=body)
    assert torch.isfinite(x[1]).tolist() == [one not in (0, 4) for one in range(9)]
    run(
        ADD_BIAS,
        x,
        [3, 1],
        [ids(2), ids(0, 8)],
        [np.float32([1.5]), np.float32([5, -2])],
        body=body,
    )
    before[3, 2] += 1.5
    assert torch.equal(x[3], before[3])
    assert x[1, 0] == -INF and x[1, 8] == before[1, 8] - 2


@every_body
def test_a_ban_yields_where_nothing_would_be_left(body: str) -> None:
    x = noise(2, 9)
    before = x.clone()
    run(BAN_IDS, x, [0], [ids(*range(9))], body=body)
    assert torch.equal(x, before)
    run(KEEP_IDS, x, [0], [ids(3)], body=body)
    kept = x.clone()
    run(BAN_IDS, x, [0], [ids(3)], body=body)
    run(KEEP_IDS, x, [0], [ids(4, 5)], body=body)
    assert torch.equal(x, kept)


@every_body
@pytest.mark.parametrize("penalty", [0.3, 1.3, 100.0])
def test_repetition_penalty_equals_transformers(penalty: float, body: str) -> None:
    x = noise(3, 1000)
    seen = np.random.default_rng(0).integers(0, 1000, (3, 300))
    want = RepetitionPenaltyLogitsProcessor(penalty)(torch.from_numpy(seen), x.clone())
    run(
        PENALIZE, x, [0, 1, 2], seen=list(seen), output=[ids()] * 3,
        repetition=[penalty] * 3, frequency=[0.0] * 3, presence=[0.0] * 3, body=body,
    )  # fmt: skip
    assert torch.equal(x, want)


@every_body
def test_frequency_and_presence_penalties_count_the_output(body: str) -> None:
    x = noise(2, 7)
    want = x.clone()
    for token_id, count in ((2, 3), (5, 1)):
        want[1, token_id] += -0.75 * count - 0.5
    run(
        PENALIZE, x, [1], seen=[ids(1, 1, 2, 5)], output=[ids(2, 5, 2, 2)],
        repetition=[1.0], frequency=[0.75], presence=[0.5], body=body,
    )  # fmt: skip
    torch.testing.assert_close(x, want, rtol=0, atol=1e-6)
    assert torch.equal(x[:, [0, 1, 3, 4, 6]], want[:, [0, 1, 3, 4, 6]])


@every_body
@pytest.mark.parametrize("size", SIZES)
def test_filters_keep_what_transformers_keep(size: int, body: str) -> None:
    for seed in range(4):
        x = noise(1, size, seed=seed)
        for min_p in (0.001, 0.1, 0.9, 1.0):
            want = MinPLogitsWarper(min_p)(None, x.clone())
            assert torch.equal(filtered(x, min_p=min_p, body=body), want), min_p
        for top_k in (1, 2, 5, 40, 3000, 10**9):
            want = TopKLogitsWarper(min(top_k, size))(None, x.clone())
            assert torch.equal(filtered(x, top_k=top_k, body=body), want), top_k
        for top_p in (1e-9, 0.1, 0.5, 0.9, 0.99):
            want = TopPLogitsWarper(top_p)(None, x.clone())
            assert torch.equal(filtered(x, top_p=top_p, body=body), want), top_p
        chain = MinPLogitsWarper(0.01)(None, x.clone())
        chain = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(min(50, size))(None, chain))
        assert torch.equal(filtered(x, min_p=0.01, top_k=50, top_p=0.8, body=body), chain)


def filtered(
    x: torch.Tensor,
    *,
    body: str,
    min_p: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> torch.Tensor:
    x = x.clone()
    run(FILTER_ROWS, x, [0], min_p=[min_p], top_k=[top_k], top_p=[top_p], body=body)
    return x


@every_body
def test_a_flat_distribution_is_cut_at_the_lowest_ids(body: str) -> None:
    """No prefix of the candidates suffices here, so that everything gets sorted."""
    kept = torch.isfinite(filtered(torch.zeros(1, 20_000), top_p=0.75, body=body))[0]
    assert kept.nonzero()[:, 0].tolist() == list(range(15_000))


@every_body
@pytest.mark.parametrize("size", SIZES)
def test_top_logprobs_are_log_softmax(size: int, body: str) -> None:
    x = noise(3, size)
    want = torch.log_softmax(x.double(), 1)
    chosen = [0, size - 1, int(x[2].argmax())]
    extra = [(), (1, 0), ()]
    for count in (0, 3, size + 5, -1):
        found = run(
            TOP_LOGPROBS, x, chosen, counts=[count] * 3, extra=extra, normalize=True, body=body
        )
        for row, (got, values, ranks) in enumerate(found):
            order = x[row].sort(descending=True, stable=True).indices.tolist()
            place = {token_id: at for at, token_id in enumerate(order)}
            kept = size if count < 0 else min(count, size)
            assert got == [chosen[row], *order[:kept], *extra[row]]
            assert ranks == [place[one] + 1 for one in got]
            torch.testing.assert_close(
                torch.tensor(values).double(), want[row, got], rtol=1e-6, atol=1e-6
            )
    got, values, _ = run(
        TOP_LOGPROBS, x, chosen, counts=[2] * 3, extra=extra, normalize=False, body=body
    )[0]
    assert values == x[0, got].tolist()


@every_body
def test_equal_logits_are_ranked_by_id(body: str) -> None:
    x = torch.tensor([[1.0, 3.0, 1.0, 3.0, 1.0, -INF, -INF]])
    got, values, ranks = run(
        TOP_LOGPROBS, x, [4], counts=[3], extra=[(5, 0)], normalize=True, body=body
    )[0]
    assert (got, ranks) == ([4, 1, 3, 0, 5, 0], [5, 1, 2, 3, 6, 3])
    assert values[4] == -INF
    got, _, ranks = run(TOP_LOGPROBS, x, [6], counts=[6], extra=[()], normalize=True, body=body)[0]
    assert (got, ranks) == ([6, 1, 3, 0, 2, 4, 5], [7, 1, 2, 3, 4, 5, 6])


# The draw


def draw(x: torch.Tensor, seed: int = 0, position: int = 0, index: int = 0, *, body: str) -> int:
    return run(GUMBEL_DRAW, x, [0], seeds=[seed], positions=[position], indices=[index], body=body)[
        0
    ]


@every_body
def test_the_draw_is_the_formula(body: str) -> None:
    """Every id, in plain Python floats; seeds of 64 bits use both words of the key."""
    x = noise(1, 3000, scale=2.0)
    for seed in (0, 1, 2**32, 2**64 - 1, -5):
        key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        for position, index in ((0, 0), (1, 0), (0, 1), (70_000, 5)):
            scores = []
            for token_id, value in enumerate(x[0].tolist()):
                word = philox4x32((token_id, position, index, 0), key)[0]
                assert isinstance(word, int)
                scores.append(value - math.log(-math.log((word + 0.5) * 2.0**-32)))
            assert draw(x, seed, position, index, body=body) == scores.index(max(scores))


@every_body
def test_the_draw_never_takes_a_filtered_id(body: str) -> None:
    x = torch.full((1, 100), -INF)
    x[0, 7] = -50.0
    x[0, 93] = -50.0
    assert {draw(x, seed, body=body) for seed in range(40)} == {7, 93}


@every_body
def test_filtering_ids_that_lose_does_not_change_the_draw(body: str) -> None:
    x = noise(1, 500)
    for seed in range(50):
        won = draw(x, seed, body=body)
        small = torch.full_like(x, -INF)
        small[0, [won, 3]] = x[0, [won, 3]]
        assert draw(small, seed, body=body) == won


@every_body
@pytest.mark.parametrize("vary", ["seed", "position", "index"])
def test_draws_have_the_frequencies_of_softmax(vary: str, body: str) -> None:
    """Pearson's statistic of 20,000 draws over 8 ids; 24.3 is exceeded once in 1,000 by chance.

    All numbers are fixed, so the outcome is too.
    """
    x = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5, 0.5, -2.0, 1.5]])
    count = 20_000
    want = torch.softmax(x[0].double(), 0) * count
    numbers = range(count)
    columns = {name: [0] * count for name in ("seed", "position", "index")}
    columns[vary] = list(numbers)
    drawn = run(
        GUMBEL_DRAW, x.expand(count, -1), range(count),
        seeds=columns["seed"], positions=columns["position"], indices=columns["index"], body=body,
    )  # fmt: skip
    counts = torch.bincount(torch.tensor(drawn), minlength=8).double()
    assert float(((counts - want) ** 2 / want).sum()) < 24.3


@every_body
@pytest.mark.parametrize("size", [5, 300, 4099, 50_257])
def test_sampling_a_row_is_its_parts(body: str, size: int) -> None:
    """Temperature, filters and draw in one call give what the four operations give in turn."""
    x = noise(12, size)
    x[7, size // 2] = math.nan
    x[8] = -INF
    x[9, 3] = 3e38
    rows = [0, 1, 2, 3, 4, 5, 6, 9, 7, 8]
    asked = {
        "temperature": [0.0, 1.0, 0.7, 1.5, 0.9, 30.0, 1.0, 0.01, 1.0, 1.0],
        "min_p": [0.0, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1],
        "top_k": [0, 0, 50, 0, 1200, 0, 3, 0, 5, 5],
        "top_p": [1.0, 1.0, 0.9, 1.0, 0.95, 0.5, 1.0, 1.0, 0.5, 0.5],
    }
    before = x.clone()
    counters = dict.fromkeys(("seeds", "positions", "indices"), rows)
    ids, best = run(SAMPLE_ROWS, x, rows, **asked, **counters, body=body)
    assert torch.equal(x.nan_to_num(), before.nan_to_num())
    assert [math.isfinite(value) for value in best] == [True] * 7 + [False] * 3
    assert ([ids[0]], [best[0]]) == run(ARGMAX, x, [0], body=body)
    good, part = rows[1:7], slice(1, 7)
    run(DIVIDE_ROWS, x, good, asked["temperature"][part], body=body)
    run(
        FILTER_ROWS, x, good, min_p=asked["min_p"][part], top_k=asked["top_k"][part],
        top_p=asked["top_p"][part], body=body,
    )  # fmt: skip
    drawn = run(GUMBEL_DRAW, x, good, seeds=good, positions=good, indices=good, body=body)
    assert ids[part] == drawn
    assert best[part] == run(ARGMAX, x, good, body=body)[1]


@every_body
def test_logprobs_of_a_row_that_is_not_finite_are_nan(body: str) -> None:
    x = noise(4, 600)
    x[0, 599] = math.nan
    x[1, 0] = INF
    x[2] = -INF
    chosen, extra = [5, 6, 7, 8], [(1, 2)] * 4
    found = run(TOP_LOGPROBS, x, chosen, counts=[3] * 4, extra=extra, normalize=True, body=body)
    for row in range(3):
        assert all(math.isnan(value) for value in found[row][1])
        assert len(found[row][0]) == len(found[row][1]) == len(found[row][2])
    alone = run(
        TOP_LOGPROBS, x, [8], counts=[3], extra=[(1, 2)], normalize=True, rows=[3], body=body
    )
    assert alone == found[3:] and len(alone[0][0]) == 6


# Bits


@pytest.mark.parametrize("size", [40, 4096, 30_011])
@pytest.mark.parametrize(
    "op",
    [op for op in OPS if op not in (FILTER_ROWS, TOP_LOGPROBS, SAMPLE_ROWS)],
    ids=lambda op: op.name,
)
def test_every_body_gives_the_bits_of_the_definition(op: Op, size: int) -> None:
    """The other three add up exponentials, whose last bit is a machine's own."""
    x = noise(9, size)
    rows = list(range(9))
    want = all_bits(op, "reference", x, rows, rows)
    for body in BODIES[1:]:
        assert all_bits(op, body, x, rows, rows) == want, body


@every_body
@pytest.mark.parametrize("size", [40, 4096, 30_011])
def test_min_p_and_top_k_keep_exactly_what_they_say(body: str, size: int) -> None:
    x = noise(8, size)
    x[4:] = x[4:].round()  # many equal entries, both zeros among them
    want = x.clone()
    top_k = [1, 7, 39, 16 * 30, 3, 17, 300, 2000]
    for row, k in enumerate(top_k):
        floor = (x[row].max().double() + math.log(1e-9)).float()
        if k < size:
            floor = max(floor, x[row].sort(descending=True).values[k - 1])
        want[row, x[row] < floor] = -INF
    run(FILTER_ROWS, x, range(8), min_p=[1e-9] * 8, top_k=top_k, top_p=[1.0] * 8, body=body)
    assert torch.equal(x, want)


def all_bits(op: Op, body: str, x: torch.Tensor, rows: list[int], names: list[int]) -> list[object]:
    """What the op makes of x's `rows`, whose parameters go by `names`, in a form that compares bits."""
    x = x.clone()
    size = x.shape[1]
    some = [np.random.default_rng(name).integers(0, size, 40) for name in names]
    fractions = [0.3 + 0.6 * (name % 7) / 7 for name in names]
    calls: dict[str, Callable[[], object]] = {
        "argmax": lambda: list(zip(*run(op, x, rows, body=body))),
        "mask_bits": lambda: run(
            op, x, rows,
            [np.random.default_rng(n).integers(0, 2**32, -(-size // 32), dtype=np.uint32) for n in names],
            body=body,
        ),
        "keep_ids": lambda: run(op, x, rows, some, body=body),
        "ban_ids": lambda: run(op, x, rows, some, body=body),
        "add_bias": lambda: run(
            op, x, rows, [np.unique(one) for one in some],
            [np.unique(one).astype(np.float32) / 7 for one in some], body=body,
        ),
        "penalize": lambda: run(
            op, x, rows, seen=some, output=[one[:31] for one in some], repetition=[1.1 + f for f in fractions],
            frequency=fractions, presence=fractions, body=body,
        ),
        "divide_rows": lambda: run(op, x, rows, fractions, body=body),
        "filter_rows": lambda: run(
            op, x, rows, min_p=[0.001 * (name % 3) for name in names], top_k=[name % 4 * 700 for name in names],
            top_p=fractions, body=body,
        ),
        "gumbel_draw": lambda: run(
            op, x, rows, seeds=names, positions=names, indices=names, body=body
        ),
        "sample_rows": lambda: list(zip(*run(
            op, x, rows, temperature=fractions, min_p=[0.001 * (name % 3) for name in names],
            top_k=[name % 4 * 700 for name in names], top_p=[min(1.0, f + 0.2) for f in fractions],
            seeds=names, positions=names, indices=names, body=body,
        ))),
        "top_logprobs": lambda: run(
            op, x[rows], [int(one[0]) for one in some], counts=[9] * len(rows),
            extra=[one.tolist() for one in some], normalize=True, body=body,
        ),
    }  # fmt: skip
    result = calls[op.name]()
    if isinstance(result, list):
        return result
    return [x[row].numpy().tobytes() for row in rows]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1001, 43_211])
@pytest.mark.parametrize(("op", "body"), EVERY, ids=[f"{op.name}-{name}" for op, name in EVERY])
def test_a_row_has_the_same_bits_alone_in_any_batch_and_with_any_threads(
    op: Op, body: str, size: int
) -> None:
    x = noise(50, size)
    names = list(range(50))
    with threads(2):
        together = all_bits(op, body, x, names, names)
        for batch in ([0, 49], [49, 0], [3, 9, 10, 30, 31, 32, 48]):
            part = all_bits(op, body, x[batch], list(range(len(batch))), batch)
            assert part == [together[row] for row in batch]
            assert all_bits(op, body, x, batch, batch) == part
    for count in (1, 2, 3):
        with threads(count):
            for row in (0, 5, 33):
                alone = all_bits(op, body, x[row : row + 1], [0], [row])
                assert alone == [together[row]]


@pytest.mark.parametrize("size", [1, 64, 1001, PIECE, 3 * PIECE + 5])
def test_pieces_are_whole_vectors_for_one_thread(size: int) -> None:
    """Below 32,768 entries torch does not share a call among threads; scalar tails round otherwise."""
    seen: list[int] = []

    def halve(piece: torch.Tensor) -> torch.Tensor:
        seen.append(len(piece))
        assert piece.data_ptr() % 64 == 0
        return piece.mul_(0.5)

    x = noise(size)
    assert torch.equal(in_pieces(x, halve, 7.0)[:size], x * 0.5)
    assert all(0 < length <= PIECE < 32_768 and length % LANES == 0 for length in seen)


@pytest.mark.parametrize("size", [7, 64, PIECE - 1, PIECE, 3 * PIECE + 5])
def test_an_entry_of_the_weights_does_not_depend_on_its_place(size: int) -> None:
    x = noise(size)
    turned = weights(x.roll(3), 1.0)[:size]
    assert torch.equal(weights(x, 1.0)[:size].roll(3), turned)
    assert not weights(x, 1.0)[size:].any()
    assert log_sum_exp(x) == pytest.approx(float(torch.logsumexp(x.double(), 0)), rel=1e-6)


SOME = [ids(1, 2, 2), ids(3)]
IN_PLACE: dict[str, dict[str, object]] = {
    "mask_bits": {"words": [np.zeros(32, np.uint32)] * 2},
    "keep_ids": {"ids": SOME},
    "ban_ids": {"ids": SOME},
    "add_bias": {"ids": [ids(1), ids(2)], "values": [np.float32([1])] * 2},
    "penalize": {
        "seen": SOME, "output": SOME, "repetition": [2.0] * 2, "frequency": [1.0] * 2, "presence": [1.0] * 2
    },
    "divide_rows": {"divisors": [2.0, 3.0]},
    "filter_rows": {"min_p": [0.1] * 2, "top_k": [5] * 2, "top_p": [0.5] * 2},
}  # fmt: skip


@every_body
@pytest.mark.parametrize("op", [op for op in OPS if op.name in IN_PLACE], ids=lambda op: op.name)
def test_rows_that_are_not_listed_stay_as_they_are(op: Op, body: str) -> None:
    x = noise(5, 1001)
    before = x.clone()
    run(op, x, [1, 3], **IN_PLACE[op.name], body=body)
    assert torch.equal(x[[0, 2, 4]], before[[0, 2, 4]])
    assert not torch.equal(x[1], before[1]) and not torch.equal(x[3], before[3])


def test_searches_of_a_row() -> None:
    x = noise(1000).round()
    order = x.sort(descending=True).values
    for k in (1, 2, 500, 1000):
        value = kth_best(x, k)
        assert value == float(order[k - 1])
        assert ids_from(x, value).tolist() == [
            at for at, one in enumerate(x.tolist()) if one >= value
        ]
        assert count_above(x, value) == sum(one > value for one in x.tolist())


def test_the_default_table_binds_every_operation() -> None:
    table = Table()
    for op in OPS:
        assert table.bind(op, "float32", V=1001).provider.row_invariant
