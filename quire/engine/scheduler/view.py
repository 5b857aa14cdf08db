"""The live requests and the cache as they stand between two steps, for somebody who looks.

Colours and words are the page's; who runs next is decided in `scheduler.scheduler`.
"""

from __future__ import annotations

from itertools import islice

from quire.engine.kvcache.view import cache_map
from quire.engine.request import Request
from quire.engine.scheduler.places import Places
from quire.protocol.engine_view import EngineView, RequestView

MAX_REQUESTS = 64
"""Requests listed at most; cells of the map are coloured for all."""


def engine_view(places: Places) -> EngineView:
    """A snapshot. What was put off until the next plan is done first, so that the map is true."""
    cache = places.cache
    cache.settle()
    requests = places.requests.values()
    holders = [
        (request.number, sequence.tables)
        for request in requests
        for sequence in request.sequences.values()
        if sequence.tables
    ]
    maps = [
        cache_map(cache.pool, group, ((number, tables[group]) for number, tables in holders))
        for group in range(len(cache.pool.layout.groups))
    ]
    listed = [_request_view(one) for one in islice(requests, MAX_REQUESTS)]
    return EngineView(requests=listed, more=len(requests) - len(listed), caches=maps)


def _request_view(request: Request) -> RequestView:
    sequences = request.sequences.values()
    num_prompt = len(request.source.prompt_token_ids)
    return RequestView(
        number=request.number,
        state="running" if any(one.row >= 0 for one in sequences) else "waiting",
        sequences=request.params.n,
        prompt=num_prompt,
        computed=min(num_prompt, max((one.computed for one in sequences), default=0)),
        cached=max(0, max((one.num_cached for one in sequences), default=0)),
        output=sum(len(one.token_ids) - num_prompt for one in sequences),
        max_output=(request.final_len - num_prompt) * request.params.n,
        blocks=sum(len(table) for one in sequences for table in one.tables),
    )
