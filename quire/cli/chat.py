"""`quire chat`: a conversation with a running server, in the terminal.

Reading lines and showing replies is `quire.cli.terminal`.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.bench.wire import ServerFailedError, chat_body
from quire.cli import terminal
from quire.cli.remote import Reply, Server


class Conversation:
    """The messages so far. A turn that fails leaves them as they were."""

    def __init__(self, system_prompt: str | None, max_tokens: int | None, stats: bool) -> None:
        self.messages: list[dict[str, str]] = []
        if system_prompt:
            self.messages.append({"role": "system", "content": system_prompt})
        self._max_tokens = max_tokens
        self._stats = stats

    def turn(self, server: Server, model: str, line: str) -> None:
        """Says a line and shows the reply, which Ctrl-C may cut short. Raises ServerFailedError."""
        self.messages.append({"role": "user", "content": line})
        reply = Reply()
        body = chat_body(model, self.messages, self._max_tokens)
        try:
            pieces = server.stream("chat/completions", body, reply)
            is_whole = terminal.show(pieces, reply, stats=self._stats)
        except ServerFailedError:
            self.messages.pop()
            raise
        if is_whole or reply.text:
            self.messages.append({"role": "assistant", "content": reply.text})
        else:
            self.messages.pop()


def main(argv: Sequence[str]) -> int:
    """Chats; returns the exit code: 0 at the end of the input, 1 if the server does not answer."""
    parser = terminal.parser("quire chat", "Talks to a server, line by line, with the history.")
    parser.add_argument("--system-prompt", metavar="TEXT", help="the first message, of role system")
    flags = terminal.read(parser, argv)
    conversation = Conversation(flags.system_prompt, flags.max_tokens, flags.stats)
    return terminal.converse(flags, "quire chat", conversation.turn)
