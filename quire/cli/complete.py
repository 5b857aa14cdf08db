"""`quire complete`: a running server continues each text that is typed.

Reading lines and showing replies is `quire.cli.terminal`.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.bench.wire import completion_body
from quire.cli import terminal
from quire.cli.remote import Reply, Server


def main(argv: Sequence[str]) -> int:
    """Completes; returns the exit code: 0 at the end of the input, 1 if the server does not answer."""
    flags = terminal.read(
        terminal.parser(
            "quire complete", "Lets a server continue texts, line by line, each on its own."
        ),
        argv,
    )

    def turn(server: Server, model: str, line: str) -> None:
        reply = Reply()
        body = completion_body(model, line, flags.max_tokens)
        terminal.show(server.stream("completions", body, reply), reply, stats=flags.stats)

    return terminal.converse(flags, "quire complete", turn)
