"""The settings that act, as frozen leaves; a component receives its own leaf, never the whole.

None means "choose for me": `engine.resolve` gives every None a value before anything is built.
A field's help text and unit are in its metadata, and the command line is generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    choices: tuple[str, ...] | None = None,
    short: str | None = None,
    env: str | None = None,
) -> Any:
    """A dataclass field with its help line. Mutable defaults are copied for each object.

    flag   the long name on the command line when it is not the field's own.
    short  a second, short spelling, with its one dash.
    env    the variable of `config.env.VARIABLES` that gives the value when flag and file do not.
    """
    metadata = {"help": help, "flag": flag, "choices": choices, "short": short, "env": env}
    if isinstance(default, (list, dict)):
        kind = type(default)
        return field(default_factory=lambda: kind(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how its numbers are read."""

    model: str = setting(
        "",
        "local folder of a checkpoint in Hugging Face format, or a hub name: org/name[:revision]",
    )
    tokenizer: str | None = setting(
        None, "folder or hub name of another tokenizer; default: the model's own"
    )
    skip_tokenizer_init: bool = setting(
        False, "no tokenizer: prompts and outputs are token ids only"
    )
    revision: str | None = setting(None, "branch, tag or commit of the model on the hub")
    tokenizer_revision: str | None = setting(
        None, "branch, tag or commit of the tokenizer on the hub"
    )
    hf_token: str | None = setting(
        None, "token for the hub; true: the one stored by hf auth login; default: HF_TOKEN"
    )
    dtype: str = setting(
        "auto",
        "type of weights and activations",
        choices=("auto", "float32", "float", "bfloat16", "half", "float16"),
    )
    quantization: str | None = setting(
        None,
        "fewer bits made of the weights at load; default: the checkpoint's own numbers",
        choices=(
            *("int8", "int8_g128", "int4", "int4_g32", "int4_g64", "int4_g128", "int4_zp"),
            *("fp8", "fp8_per_channel", "fp8_per_tensor", "fp8_per_block"),
        ),
        short="-q",
    )
    max_model_len: int | None = setting(
        None, "longest sequence, prompt and output together, in tokens"
    )
    seed: int | None = setting(
        None,
        "seed from which requests without one draw theirs; default: 0 offline, the system's in a server",
    )
    chat_template: str | None = setting(
        None,
        "chat template: a file, its text, or a name among the model's; default: the model's own",
    )
    chat_template_content_format: Literal["auto", "string", "openai"] = setting(
        "auto", "message content for the template: text, a list of parts, or what it can read"
    )
    trust_remote_code: bool = setting(False, "allow Python code from the checkpoint to run")
    hf_overrides: dict[str, Any] = setting(
        {}, "JSON object merged over the checkpoint's config.json"
    )
    served_model_name: list[str] = setting([], "names the server answers to; the first is echoed")
    max_logprobs: int = setting(
        20, "largest number of logprobs a request may ask for; -1 is no limit"
    )
    logprobs_mode: Literal[
        "raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits"
    ] = setting(
        "raw_logprobs",
        "whether logprobs show the model's numbers or those after penalties and filters",
    )
    generation_config: str = setting(
        "auto",
        "where default sampling values come from: auto (the model), vllm (none), or a folder",
    )
    override_generation_config: dict[str, Any] = setting(
        {}, "JSON object over the generation config"
    )


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """How weights come from disk."""

    load_format: Literal["auto", "safetensors", "dummy"] = setting(
        "auto", "weight reader; dummy fills random weights"
    )
    download_dir: str | None = setting(
        None, "folder that hub downloads are kept in; default: the hub library's cache"
    )
    use_tqdm_on_load: bool = setting(True, "show a progress bar while weights load")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The KV cache."""

    block_size: int | None = setting(None, "tokens per block: a power of two from 8 to 256")
    gpu_memory_utilization: float = setting(
        0.9, "share of the memory left by the weights that the cache may use"
    )
    kv_cache_memory_bytes: int | None = setting(
        None, "exact size of the cache in bytes; overrides the share"
    )
    num_gpu_blocks_override: int | None = setting(
        None, "exact number of blocks of the first cache group"
    )
    enable_prefix_caching: bool | None = setting(None, "reuse the blocks of equal prefixes")
    prefix_caching_hash_algo: Literal["sha256", "sha256_cbor"] = setting(
        "sha256", "digest of block keys"
    )
    kv_cache_dtype: str = setting(
        "auto",
        "stored type; auto is the model's, the others take a byte a number: fp8 without scales, int8 and "
        "fp8_per_token_head with one for each token and head",
        choices=(
            *("auto", "float32", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_per_token_head"),
            *("int8", "int8_per_token_head"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Who runs in a step."""

    max_num_seqs: int | None = setting(None, "sequences that run at once")
    max_num_batched_tokens: int | None = setting(None, "token budget of one step")
    long_prefill_token_threshold: int = setting(
        0, "longest piece of one prompt in a step, in tokens; 0 is no limit"
    )
    scheduling_policy: Literal["fcfs", "priority"] = setting("fcfs", "order of waiting requests")
    async_scheduling: bool | None = setting(None, "plan a step while the one before it runs")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Devices, threads, and which provider carries out an operation."""

    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where the model runs")
    threads: int | None = setting(
        None, "arithmetic threads of a CPU worker; default: physical cores"
    )
    kernel_overrides: dict[str, str] = setting({}, "JSON object: operation (or all) to provider")
    fast_math: bool = setting(False, "admit providers whose rows depend on their batch")
    tensor_parallel_size: int = setting(1, "devices that share one copy of the model", short="-tp")


@dataclass(frozen=True, kw_only=True)
class ObservabilityConfig:
    """What is logged and counted."""

    disable_log_stats: bool = setting(False, "collect no metrics")
    log_stats_interval: float = setting(
        10.0,
        "seconds between two lines of what the engine does; 0: none",
        env="VLLM_LOG_STATS_INTERVAL",
    )
    enable_log_requests: bool = setting(False, "log each request's arrival")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP server: where it listens, whom it answers, what it says."""

    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8000, "port to bind; 0 picks a free one")
    uds: str | None = setting(None, "path of a Unix socket to bind instead of host and port")
    api_key: list[str] = setting([], "accepted bearer keys; none: open", env="QUIRE_API_KEY")
    root_path: str = setting("", "path prefix behind a proxy")
    allowed_hosts: list[str] = setting(
        [], "Host names answered beside the bind address; * answers all"
    )
    allowed_origins: list[str] = setting([], "origins that browsers may call from (CORS)")
    allowed_methods: list[str] = setting(["*"], "methods that those origins may use")
    allowed_headers: list[str] = setting(["*"], "headers that those origins may send")
    allow_credentials: bool = setting(False, "let those origins send cookies and keys")
    ssl_keyfile: str | None = setting(None, "private key, PEM; with it the server speaks TLS")
    ssl_certfile: str | None = setting(None, "certificate chain, PEM")
    ssl_ca_certs: str | None = setting(None, "certificates that client certificates must chain to")
    ssl_cert_reqs: int = setting(0, "client certificates: 0 none, 1 optional, 2 required")
    ssl_ciphers: str | None = setting(None, "cipher list for TLS 1.2 and below")
    uvicorn_log_level: str = setting(
        "info",
        "log level of the HTTP server",
        choices=("critical", "error", "warning", "info", "debug", "trace"),
    )
    disable_uvicorn_access_log: bool = setting(False, "no line per request")
    disable_access_log_for_endpoints: list[str] = setting([], "paths without a line per request")
    disable_fastapi_docs: bool = setting(False, "no /openapi.json, /docs and /redoc")
    default_chat_template_kwargs: dict[str, Any] = setting(
        {}, "JSON object of template variables; a request's own go over them"
    )
    response_role: str = setting("assistant", "role of the answers to chats")
    exclude_tools_when_tool_choice_none: bool = setting(
        False, "show no tools to the model where a request says tool_choice none"
    )
    enable_request_id_headers: bool = setting(False, "X-Request-Id in every response")
    enable_prompt_tokens_details: bool = setting(False, "report cached tokens in usage")
    enable_force_include_usage: bool = setting(False, "usage in every stream")
    enable_server_load_tracking: bool = setting(False, "count requests in flight for /load")
    return_tokens_as_token_ids: bool = setting(False, "tokens of logprobs as token_id:N")
    fingerprint_mode: Literal["full", "hash", "custom", "none"] = setting(
        "full", "what system_fingerprint holds"
    )
    fingerprint_value: str | None = setting(None, "system_fingerprint in custom mode")
    strict: bool = setting(
        False, "refuse unknown request fields instead of naming them in a header"
    )
    max_body_bytes: int = setting(32 << 20, "largest request body, in bytes")
    max_header_bytes: int = setting(64 << 10, "largest request head, in bytes")
    header_timeout: float = setting(10.0, "seconds a client gets to send a request head")
    body_timeout: float = setting(30.0, "seconds of silence inside a request body before 408")
    keep_alive_timeout: float = setting(
        5.0, "seconds an idle connection is kept", env="VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
    )
    max_num_choices: int = setting(
        128, "largest n and best_of of a request", env="VLLM_MAX_N_SEQUENCES"
    )
    max_num_prompts: int = setting(
        1024, "most prompts in one completions request", env="VLLM_MAX_COMPLETION_PROMPTS"
    )
    max_queue_wait: float = setting(
        10.0, "seconds within which a first token is promised, else 429; 0 admits everything"
    )
    server_dev_mode: bool = setting(
        False, "routes for development: /server_info", env="VLLM_SERVER_DEV_MODE"
    )
    shutdown_timeout: float = setting(
        30.0, "seconds that running requests get to finish after SIGTERM"
    )
    keep_alive_on_engine_death: bool = setting(
        False,
        "go on answering with errors when the engine is dead",
        env="VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything an engine is built from. Handed to `engine.resolve` and the faces only."""

    model: ModelConfig = field(default_factory=ModelConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
