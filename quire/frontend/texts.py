"""What a front needs to read and write texts, opened as the settings say.

Reading prompts with it is `frontend.prompts`' and `frontend.chat`'s.
"""

from __future__ import annotations

from quire.config.schema import Settings
from quire.frontend.chat import ChatRenderer
from quire.frontend.outside_tokenizer import open_tokenizer
from quire.frontend.tokenizer import Tokenizer
from quire.models.registry import ModelDescription
from quire.protocol.errors import QuireError

Texts = tuple[Tokenizer | None, ChatRenderer | None]
"""The tokenizer, and what makes a prompt of a chat; None where only ids are served."""


def open_texts(settings: Settings, description: ModelDescription) -> Texts:
    """Opens both. Raises SettingsError or ModelLoadError."""
    model = settings.model
    if model.skip_tokenizer_init:
        return None, None
    folder = model.tokenizer or description.path
    tokenizer = open_tokenizer(folder, model.tokenizer_mode)
    chat = ChatRenderer.load(
        folder,
        tokenizer,
        chat_template=model.chat_template,
        content_format=model.chat_template_content_format,
    )
    return tokenizer, chat


def opened_early(settings: Settings, description: ModelDescription) -> Texts | None:
    """The same for those who wait for an engine; None where it fails: the engine's reasons come first."""
    try:
        return open_texts(settings, description)
    except QuireError:
        return None
