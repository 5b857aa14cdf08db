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
    tokenizer_mode: str = setting(
        "auto",
        "files of the tokenizer: tokenizer.json (hf), those that Transformers makes one of (slow), tekken.json "
        "(mistral); auto: the first, else the last; or a name that a plug-in registers",
        choices=("auto", "hf", "slow", "mistral"),
        grows=True,
    )
    config_format: Literal["auto", "hf", "mistral"] = setting(
        "auto", "config.json (hf), or params.json (mistral); auto: what is there"
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
        "fewer bits made of plain weights at load, or the checkpoint's method, which is found by itself",
        choices=(
            *(
                "int8",
                "int8_g128",
                "int8_w8a8",
                "int4",
                "int4_g32",
                "int4_g64",
                "int4_g128",
                "int4_zp",
            ),
            *("fp8", "fp8_per_channel", "fp8_per_tensor", "fp8_per_block"),
            *("gguf", "compressed-tensors", "gptq", "gptq_marlin", "gptq_marlin_24", "auto_gptq"),
            *("awq", "awq_marlin", "cpu_awq", "bitsandbytes", "mxfp4"),
            *("fbgemm_fp8", "ptpc_fp8", "modelopt", "modelopt_fp4"),
            *("auto-round", "intel/auto-round", "inc", "hqq", "quark", "torchao", "bitnet"),
        ),
        grows=True,
        short="-q",
    )
    activation_bits: int | None = setting(
        None,
        "8 or 16: bits of integer weights' inputs on cpu; default: 8 for GGUF of 2 to 6 bits, else 16",
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
    model_impl: Literal["auto", "vllm", "quire", "transformers"] = setting(
        "auto",
        "whose code describes the model: ours (vllm means the same), or that of Transformers; auto: ours "
        "where there is a description",
    )
    trust_remote_code: bool = setting(False, "allow Python code from the checkpoint to run")
    runner: Literal["auto", "generate", "pooling"] = setting(
        "auto", "text, or embeddings, classes and scores; auto: what the checkpoint was made for"
    )
    convert: Literal["auto", "none", "embed", "classify"] = setting(
        "auto", "what a model that was made for text becomes in a pooling runner; auto: embed"
    )
    pooler_config: dict[str, Any] = setting(
        {},
        "JSON object over how the checkpoint pools: pooling_type (CLS, LAST, MEAN), use_activation, "
        "dimensions, enable_chunked_processing, max_embed_len, logit_mean, logit_sigma and more",
    )
    hf_overrides: dict[str, Any] = setting(
        {}, "JSON object merged over the checkpoint's config.json"
    )
    served_model_name: list[str] = setting([], "names the server answers to; the first is echoed")
    max_logprobs: int = setting(
        20, "largest number of logprobs a request may ask for; -1 is no limit"
    )
    enable_prompt_embeds: bool = setting(
        False, "take prompts as embeddings, rows as they enter the first layer (prompt_embeds)"
    )
    io_processor_plugin: str | None = setting(
        None, "entry point that takes data in the place of prompts, for a model that pools"
    )
    logits_processors: list[str] = setting(
        [], "classes that change logits, each as module:Class; code of the operator's own"
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

    load_format: str = setting(
        "auto",
        "what is read, found by the files themselves where it is not said: pt (pickles, for their weights "
        "alone), mistral (consolidated*.safetensors) and sharded_state (vLLM's) are read only if asked for; "
        "dummy fills random weights; or a name that a plug-in registers",
        choices=(
            *("auto", "hf", "safetensors", "pt", "gguf", "bitsandbytes", "mistral"),
            *("sharded_state", "dummy", "npcache", "tensorizer", "runai_streamer"),
            *("runai_streamer_sharded", "fastsafetensors", "instanttensor", "modelexpress"),
        ),
        grows=True,
    )
    model_loader_extra_config: dict[str, Any] = setting(
        {}, "JSON object for a plug-in's reader of that name; our own readers have no settings"
    )
    download_dir: str | None = setting(
        None, "folder that hub downloads are kept in; default: the hub library's cache"
    )
    use_tqdm_on_load: bool = setting(True, "show a progress bar while weights load")
    packed_weights_gib: float = setting(
        0.0,
        "GiB of disk in QUIRE_CACHE_DIR that keep weights as the kernels want them, so that later starts "
        "neither round nor pack them; 0 keeps none",
    )


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
    mamba_block_size: int | None = setting(
        None, "tokens for which one recurrent state is kept: a multiple of the block size"
    )
    enable_prefix_caching: bool | None = setting(None, "reuse the blocks of equal prefixes")
    prefix_caching_hash_algo: Literal["sha256", "sha256_cbor"] = setting(
        "sha256", "digest of block keys"
    )
    kv_cache_dtype: str = setting(
        "auto",
        "stored type; auto is the model's, the others take a byte a number: fp8 and fp8_e5m2 without scales, int8 and "
        "fp8_per_token_head with one for each token and head",
        choices=(
            *("auto", "float32", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"),
            *("fp8_per_token_head", "int8", "int8_per_token_head"),
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
    stream_interval: int = setting(
        1, "tokens between two outputs of a stream; its first and its last come at once"
    )


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
class GrammarConfig:
    """Constraints on the output of a request."""

    structured_outputs_config: dict[str, Any] = setting(
        {},
        "JSON object: backend (auto, guidance, xgrammar), disable_any_whitespace, "
        "disable_additional_properties, enable_in_reasoning",
    )
    guided_decoding_backend: str | None = setting(
        None, "old name of structured_outputs_config.backend"
    )


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
    profiler_config: dict[str, Any] = setting(
        {}, "JSON object for /start_profile: profiler torch, torch_profiler_dir and more"
    )


@dataclass(frozen=True, kw_only=True)
class SupervisionConfig:
    """What happens when an engine process dies or no longer moves."""

    engine_restarts: int = setting(
        5, "restarts of a dead engine within ten minutes, before its death is final; 0: none"
    )
    engine_stall_timeout: float = setting(
        4.5, "seconds without any movement after which an engine counts as dead; 0: never"
    )


@dataclass(frozen=True, kw_only=True)
class ParserConfig:
    """How a model's output is read: where its reasoning ends, and how it writes calls of tools."""

    reasoning_parser: str = setting(
        "", "form of the model's reasoning; default: none is looked for"
    )
    reasoning_parser_plugin: str = setting("", "Python file that adds reasoning parsers")
    tool_call_parser: str | None = setting(None, "form in which the model calls tools")
    tool_parser_plugin: str = setting("", "Python file that adds tool parsers")
    enable_auto_tool_choice: bool = setting(
        False, "let the model choose whether it calls a tool; needs --tool-call-parser"
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything an engine is built from. Handed to `engine.resolve` and the faces only."""

    model: ModelConfig = field(default_factory=ModelConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    grammar: GrammarConfig = field(default_factory=GrammarConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    parsers: ParserConfig = field(default_factory=ParserConfig)
