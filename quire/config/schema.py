"""The settings that act, as frozen leaves; a component receives its own leaf, never the whole.

None means "choose for me": `engine.resolve` gives every None a value before anything is built.
A field's help text and unit are in its metadata, and the command line is generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from quire.config.setting import setting


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
class Settings:
    """Everything an engine is built from. Handed to `engine.resolve` and the faces only."""

    model: ModelConfig = field(default_factory=ModelConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
