"""A request as the scheduler keeps it: its sequences, what they know and where they stand.

Decides nothing: who runs is `engine.scheduler`, where the cache lives is `engine.kvcache`.
"""

from __future__ import annotations

import sys
from array import array

from quire.protocol.cache import NULL_BLOCK
from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import NewRow

NEVER = sys.maxsize
"""Later than every step and every position."""


def pack_ids(token_ids: list[int]) -> bytes:
    """Token ids as little-endian int32. Raises OverflowError for an id that does not fit."""
    packed = array("i", token_ids)
    if sys.byteorder != "little":
        packed.byteswap()
    return packed.tobytes()


def needs_mask(source: EngineRequest) -> bool:
    """Whether each of the request's tokens is chosen under a mask: of a grammar, or of a thinking budget."""
    budget = getattr(source.params, "thinking_token_budget", None)
    return source.grammar is not None or (budget is not None and bool(source.end_of_thinking_ids))


class Request:
    """One request of a user and the sequences that are left of it.

    rank, number lower runs first: priority, then order of arrival.
    unfinished   indices without a finish reason, also those whose sequence is not made yet.
    sequences    the live ones by index; the leader prefills, the others are made when its prompt
                 is planned to the end.
    root_key     parent key of the first block; empty until it is needed.
    packed_prompt  the prompt's ids as little-endian int32. Made on arrival, while the ids are in the
                 processor's cache: reading them from their objects later costs 3 times the hashing.
    pools        it asks for a result of its prompt, not for text; `params` then say one token.
    logprobs_at  the first prompt position whose logprobs were not sent; `num_prompt` when none is
                 wanted or all are sent.
    queued_s, scheduled_s  monotonic seconds.
    new_row      what the worker is told of a sequence that takes a row, without row and blocks.
    encoder_len  tokens that an encoder reads before the first step; 0 without one.
    """

    __slots__ = (
        "source",
        "request_id",
        "params",
        "rank",
        "number",
        "unfinished",
        "sequences",
        "is_forked",
        "pools",
        "reads_cache",
        "writes_cache",
        "root_key",
        "packed_prompt",
        "logprobs_at",
        "stops",
        "eos",
        "final_len",
        "queued_s",
        "scheduled_s",
        "new_row",
        "encoder_len",
    )

    def __init__(
        self,
        source: EngineRequest,
        params: SamplingParams,
        *,
        rank: int,
        number: int,
        max_model_len: int,
        caching: bool,
        now_s: float,
    ) -> None:
        num_prompt = len(source.prompt_token_ids)
        self.source = source
        self.request_id = source.request_id
        self.params = params
        self.rank = rank
        self.number = number
        self.unfinished = set(range(params.n))
        self.sequences: dict[int, Sequence] = {}
        self.is_forked = params.n == 1
        # Ids alone do not name what an encoder was given.
        self.writes_cache = caching and source.encoder is None
        self.reads_cache = self.writes_cache and not params.skip_reading_prefix_cache
        self.root_key = b""
        self.packed_prompt = pack_ids(source.prompt_token_ids)
        self.logprobs_at = 1 if params.prompt_logprobs is not None else num_prompt
        # Under a grammar an end token comes only where it must or may: it is an end for everybody.
        ignores_eos = params.ignore_eos and source.grammar is None
        self.eos = frozenset(() if ignores_eos else source.eos_token_ids)
        self.stops = self.eos.union(params.stop_token_ids) if params.stop_token_ids else self.eos
        room = max_model_len if params.max_tokens is None else num_prompt + params.max_tokens
        self.final_len = min(room, max_model_len)
        self.pools = isinstance(source.params, PoolingParams)
        if self.pools:
            # Its last step gives a result in the place of a token; nothing need fit behind the prompt.
            self.final_len = num_prompt + 1
            self.reads_cache = self.reads_cache and not source.params.skip_reading_prefix_cache
        self.encoder_len = 0 if source.encoder is None else len(source.encoder.token_ids)
        self.queued_s = now_s
        self.scheduled_s = 0.0
        self.new_row = NewRow(
            row=-1,
            request_id=source.request_id,
            index=0,
            token_ids=source.prompt_token_ids,
            num_prompt_tokens=num_prompt,
            params=source.params,
            seed=source.seed,
            block_ids=[],
            eos_token_ids=source.eos_token_ids,
            adapter=source.adapter,
            media=source.media,
            positions=source.positions,
            embeds=source.embeds,
            embed_rows=source.embed_rows,
            spans=source.spans,
            type_from=source.type_from,
            encoder=source.encoder,
            needs_mask=needs_mask(source),
        )

    def make_sequence(self, index: int) -> Sequence:
        """A waiting sequence of this request that owns nothing yet."""
        token_ids = list(self.source.prompt_token_ids)
        if self.source.resume_ids is not None and index < len(self.source.resume_ids):
            token_ids += self.source.resume_ids[index]
        sequence = Sequence(self, index, token_ids, (self.rank, self.number, index))
        self.sequences[index] = sequence
        return sequence


class Sequence:
    """One continuation: known tokens, computed tokens, its row and its block tables.

    token_ids    ids the engine has seen: prompt, then output.
    length       len(token_ids), and the tokens sampled by steps in flight: the worker knows them.
    computed     tokens whose cache is filled, once the planned steps have run.
    plain_until  while `length` is at most this, its next step is one token that needs no block and
                 completes none; 0 when that is not so or not known.
    quiet_until  while positive, each of its rows in flight computes one token and samples the next, and a
                 token that makes it so many known ones at most is neither its first news nor its end by
                 length; 0 when that is not so, or while results may come that are not for it.
    tables       [groups][blocks] block ids, NULL_BLOCK where a window has passed.
    capacity     tokens that the tables reach.
    keys         keys of its leading full blocks: the prompt's on arrival, later ones as needed.
    published    leading blocks whose keys were offered to the cache.
    publish_at   tokens at which the next key can be published.
    valid_from   results of steps before this one are not for it; NEVER when it is finished.
    reads_cache  whether it may start from cached blocks.
    is_fork      waits with references on its leader's blocks.
    wait_key     key that a running sequence is computing and that this one waits for.
    busy_key     key of the next block that this one will fill with known tokens.
    alone_until  while positive it runs alone in its steps, until it has computed so many tokens.
    is_suspect   it took part in a step that failed.
    num_cached   prompt tokens found in the cache when it first ran; -1 before.
    """

    __slots__ = (
        "request",
        "request_id",
        "index",
        "order",
        "token_ids",
        "num_prompt",
        "length",
        "computed",
        "plain_until",
        "quiet_until",
        "final_len",
        "min_len",
        "stops",
        "row",
        "tables",
        "capacity",
        "keys",
        "published",
        "publish_at",
        "valid_from",
        "reads_cache",
        "is_fork",
        "wait_key",
        "busy_key",
        "alone_until",
        "is_suspect",
        "num_cached",
        "is_announced",
        "num_nonfinite",
    )

    def __init__(
        self, request: Request, index: int, token_ids: list[int], order: tuple[int, int, int]
    ) -> None:
        num_prompt = len(request.source.prompt_token_ids)
        self.request = request
        self.request_id = request.request_id
        self.index = index
        self.order = order
        self.token_ids = token_ids
        self.num_prompt = num_prompt
        self.length = len(token_ids)
        self.computed = 0
        self.plain_until = 0
        self.quiet_until = 0
        self.final_len = request.final_len
        # Under a grammar an end below min_tokens is one that nothing else could follow.
        is_free = request.source.grammar is None
        self.min_len = num_prompt + (request.params.min_tokens if is_free else 0)
        self.stops = request.stops
        self.row = -1
        self.tables: list[list[int]] = []
        self.capacity = 0
        self.keys: list[bytes] = []
        self.published = 0
        self.publish_at = NEVER
        self.valid_from = 0
        self.reads_cache = request.reads_cache
        self.is_fork = False
        self.wait_key: bytes | None = None
        self.busy_key: bytes | None = None
        self.alone_until = 0
        self.is_suspect = False
        self.num_cached = -1
        self.is_announced = False
        self.num_nonfinite = 0

    @property
    def pending(self) -> int:
        """Tokens sampled by steps in flight, which the worker knows and we do not yet."""
        return self.length - len(self.token_ids)

    @property
    def is_finished(self) -> bool:
        """Whether nothing may be planned for it or told of it any more."""
        return self.valid_from == NEVER

    def held_blocks(self, group: int) -> list[int]:
        """Blocks of a group on which this sequence holds a reference, in token order."""
        if not self.tables:
            return []
        return [block for block in self.tables[group] if block != NULL_BLOCK]
