"""Turns names on the Hugging Face hub into local folders, downloading what is not there yet.

Reading a folder is `models.registry`; huggingface_hub is imported only when a hub name is given.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quire.config.schema import ModelConfig, Settings
from quire.models.loading.forms import in_known_form, reader_of, refuse_form, with_tokenizer_file
from quire.models.loading.gguf.found import gguf_file
from quire.models.loading.loaders import patterns_of
from quire.protocol.errors import ModelLoadError, SettingsError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?::([\w./-]+))?")
_QUANT = re.compile(r"(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4\w*|F16|BF16|F32|FP16)", re.IGNORECASE)
"""Names of kinds of GGUF files, as they stand at the end of the files' names."""
_CONFIG_FILES = ("config.json", "generation_config.json")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
_FILES_OF_FORMS = {
    "pt": ("*.bin", "*.pt", "*.pth"),
    "mistral": ("params.json", "tekken.json", "consolidated*.safetensors"),
}
"""Instead, for those who ask for another form."""
_LEFT_OUT = ("*/*", "consolidated*")
"""Folders hold other forms of the same weights, and so do the makers' own consolidated files."""


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, and the branch, tag or commit that was written behind it.

    quant  the kind of GGUF file that was written there instead.
    """

    repo: str
    revision: str | None
    quant: str | None = None


def hub_name(text: str) -> HubName | None:
    """`org/name`, `org/name:revision` or `org/name:Q4_K_M` as its parts.

    None for a folder or a GGUF file that exists, or any other text.
    """
    if Path(text).is_dir() or (text.endswith(".gguf") and Path(text).is_file()):
        return None
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    if match[2] is not None and _QUANT.fullmatch(match[2]):
        return HubName(match[1], None, match[2].upper())
    return HubName(match[1], match[2])


def needs_hub(settings: Settings) -> bool:
    """Whether the settings name something on the hub."""
    model = settings.model
    return any(hub_name(name or "") is not None for name in (model.model, model.tokenizer))


def with_local_folders(settings: Settings) -> Settings:
    """The same settings with folders in the places of hub names, and without the token.

    The model keeps its hub name as the one it is served under, unless another is given.
    Settings that name no hub are returned as they are. Raises ModelLoadError with what is wrong, and
    SettingsError if two revisions are named.
    """
    model, load = settings.model, settings.load
    local, reader = replace(model, hf_token=None), reader_of(load.load_format)
    if load.model_loader_extra_config and reader is None:
        raise SettingsError(
            f"model_loader_extra_config is given, but the reader of load_format {load.load_format!r} has no "
            "settings; leave it out"
        )
    name = hub_name(model.model)
    file = gguf_file(model.model)
    if name is not None and name.quant is not None:
        file = _fetch_gguf(settings, name)
    if file is not None and reader is not None:
        raise SettingsError(
            f"{model.model} is a GGUF file, which load_format {load.load_format!r} does not get; leave one out"
        )
    if file is not None:
        folder = _folder_of(file, with_tokenizer=model.tokenizer is None)
        served = model.served_model_name or [model.model]
        local = replace(local, model=str(folder), served_model_name=served)
    elif name is not None:
        patterns: tuple[str, ...] = (
            _CONFIG_FILES if model.tokenizer else _CONFIG_FILES + _TOKENIZER_FILES
        )
        if reader is not None:
            patterns += patterns_of(reader)
        elif load.load_format != "dummy":
            patterns += _FILES_OF_FORMS.get(load.load_format, _WEIGHT_FILES)
        folder = _fetch(settings, name, "--revision", model.revision, patterns)
        names = model.served_model_name or [model.model]
        local = replace(local, model=str(folder), served_model_name=names)
    tokenizer = hub_name(model.tokenizer or "")
    if tokenizer is not None:
        folder = _fetch(
            settings, tokenizer, "--tokenizer-revision", model.tokenizer_revision, _TOKENIZER_FILES
        )
        local = replace(local, tokenizer=str(folder))
    path = Path(local.model)
    if file is None and path.is_dir() and load.load_format != "dummy":
        refuse_form(load.load_format)
        folder = in_known_form(path, settings)
        names = local.served_model_name or [model.model]
        if folder != path:
            local = replace(local, model=str(folder), served_model_name=names)
    if local.tokenizer and Path(local.tokenizer).is_dir():
        with_file = with_tokenizer_file(Path(local.tokenizer), model.tokenizer_mode)
        local = replace(local, tokenizer=str(with_file))
    if local == model:
        return settings
    load = replace(load, download_dir=None)
    if reader is not None:  # what it gives is written down, and read as any other folder
        load = replace(load, load_format="auto", model_loader_extra_config={})
    return replace(settings, model=local, load=load)


def _folder_of(file: Path, *, with_tokenizer: bool) -> Path:
    # A fifth of what would be imported before the engine's process is started.
    from quire.models.loading.gguf.folder import folder_of

    return folder_of(file, with_tokenizer=with_tokenizer)


def _fetch(
    settings: Settings,
    name: HubName,
    flag: str,
    given: str | None,
    patterns: tuple[str, ...],
) -> Path:
    """The folder of one repository's snapshot; the files of the patterns that it has are in it."""
    if name.revision is not None and given is not None and name.revision != given:
        raise SettingsError(
            f"{name.repo}:{name.revision} and {flag} {given} name two revisions; give one of them"
        )
    hub = importlib.import_module("huggingface_hub")
    token: str | bool | None = settings.model.hf_token
    if isinstance(token, str) and token.lower() == "true":
        token = True  # the one that `hf auth login` stored
    revision = name.revision or given
    try:
        folder = Path(
            hub.snapshot_download(
                name.repo,
                revision=revision,
                cache_dir=settings.load.download_dir,
                token=token,
                allow_patterns=list(patterns),
                ignore_patterns=[one for one in _LEFT_OUT if f"{one}.safetensors" not in patterns],
                library_name="quire",
            )
        )
    except Exception as error:
        raise ModelLoadError(_reason(error, name, revision)) from error
    if set(_WEIGHT_FILES) <= set(patterns) and not any(folder.glob("*.safetensors")):
        raise ModelLoadError(
            f"{name.repo} has no safetensors files; take a repository that has them, or convert the "
            "weights and give the folder"
        )
    logger.info("%s is %s", name.repo, folder)
    return folder


def _fetch_gguf(settings: Settings, name: HubName) -> Path:
    """The GGUF file of a kind in a repository, its first part if it was split.

    Raises ModelLoadError, with the kinds that there are, if there is none.
    """
    model, hub = settings.model, importlib.import_module("huggingface_hub")
    token: str | bool | None = model.hf_token
    if isinstance(token, str) and token.lower() == "true":
        token = True
    pattern = f"*{name.quant}*.gguf"
    try:
        folder = Path(
            hub.snapshot_download(
                name.repo,
                revision=model.revision,
                cache_dir=settings.load.download_dir,
                token=token,
                allow_patterns=[pattern, pattern.lower(), f"*{str(name.quant).lower()}*.gguf"],
                ignore_patterns=["*mmproj*", "*imatrix*"],
                library_name="quire",
            )
        )
    except Exception as error:
        raise ModelLoadError(_reason(error, name, model.revision)) from error
    ending = re.compile(
        rf"(?:.*[-._/])?{re.escape(str(name.quant))}(?:-00001-of-\d{{5}})?\.gguf", re.IGNORECASE
    )
    found = [path for path in sorted(folder.rglob("*.gguf")) if ending.fullmatch(path.name)]
    if not found:
        raise ModelLoadError(
            f"{name.repo} has no GGUF file of the kind {name.quant}; the kinds are the ends of the names of "
            "its files, such as Q4_K_M or Q8_0"
        )
    logger.info("%s is %s", model.model, found[0])
    return found[0]


def _reason(error: Exception, name: HubName, revision: str | None) -> str:
    """One sentence for what the hub, the network or the disk said."""
    errors: Any = importlib.import_module("huggingface_hub.errors")
    repo, endpoint = name.repo, importlib.import_module("huggingface_hub.constants").ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated: ask for access at {endpoint}/{repo}, then give a token that has it, with "
            "--hf-token or HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no branch, tag or commit {revision!r}; leave the revision out for main"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no folder {repo!r} here and no model {repo!r} at {endpoint}, or it is private: check "
            "the name, or give a token with --hf-token or HF_TOKEN"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        constants: Any = importlib.import_module("huggingface_hub.constants")
        if constants.HF_HUB_OFFLINE:
            return (
                f"{repo}{_at(revision)} is not in the local cache, and HF_HUB_OFFLINE forbids to download it: "
                "unset it, or give a folder"
            )
        cause = error.__cause__ or error
        return (
            f"{repo} is not in the local cache, and {endpoint} cannot be reached "
            f"({type(cause).__name__}): check the network, or give a folder"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return f"{endpoint} refused {repo}{_at(revision)}: {_first_line(error)}"
    return f"{repo}{_at(revision)} could not be fetched from {endpoint}: {_first_line(error)}"


def _at(revision: str | None) -> str:
    return "" if revision is None else f" at {revision!r}"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def check_name(model: ModelConfig) -> None:
    """Raises SettingsError, without a look at the network, for text that is no folder and no hub name."""
    text = model.model
    if text.endswith(".gguf") and not Path(text).is_file():
        raise SettingsError(f"there is no file {text!r}; give the path of a GGUF file")
    if not Path(text).is_dir() and not text.endswith(".gguf") and hub_name(text) is None:
        raise SettingsError(
            f"there is no folder {text!r}, and it is no name on the hub (org/name or org/name:revision); "
            "give the folder of a checkpoint (config.json, tokenizer.json, *.safetensors)"
        )
