"""vLLM's flags that are no settings of ours: which change nothing here, and which are refused and why.

The settings that act are in `config.schema`; a name that is in neither place is unknown.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from quire.protocol.errors import SettingsError

Verdict = Literal["no effect", "refused"]
Kind = Literal["bool", "value", "list", "json"]


class KnownFlag(NamedTuple):
    """One flag. `kind` says what follows it on the command line; `default` is vLLM's.

    A value equal to the default, None or an empty value is always accepted, refused or not.
    """

    verdict: Verdict
    sentence: str
    kind: Kind
    default: Any


KNOWN_FLAGS: dict[str, KnownFlag] = {}
"""Field name (with underscores) -> what becomes of it."""

SHORT_NAMES: dict[str, str] = {
    "-pp": "pipeline_parallel_size", "-dcp": "decode_context_parallel_size",
    "-pcp": "prefill_context_parallel_size", "-n": "nnodes", "-r": "node_rank",
    "-dp": "data_parallel_size", "-dpn": "data_parallel_rank", "-dpr": "data_parallel_start_rank",
    "-dpl": "data_parallel_size_local", "-dpa": "data_parallel_address",
    "-dpp": "data_parallel_rpc_port", "-dpb": "data_parallel_backend",
    "-dph": "data_parallel_hybrid_lb", "-dpe": "data_parallel_external_lb",
    "-dpm": "data_parallel_multi_port_external_lb", "-ep": "enable_expert_parallel",
    "-ac": "attention_config", "-cc": "compilation_config", "-sc": "speculative_config",
    "-dc": "diffusion_config", "-O": "optimization_level", "-asc": "api_server_count",
}  # fmt: skip

_BOOL = object()
_LIST = object()
_JSON = object()
_KINDS: dict[int, tuple[Kind, Any]] = {
    id(_BOOL): ("bool", None), id(_LIST): ("list", None), id(_JSON): ("json", None)
}  # fmt: skip


def _add(verdict: Verdict, sentence: str, **defaults: Any) -> None:
    for name, default in defaults.items():
        kind: Kind = "value"
        if id(default) in _KINDS:
            kind, default = _KINDS[id(default)]
        elif isinstance(default, bool):
            kind = "bool"
        elif isinstance(default, list):
            kind = "list"
        elif isinstance(default, dict):
            kind = "json"
        KNOWN_FLAGS[name] = KnownFlag(verdict, sentence, kind, default)


_SAME_AS_DEFAULT = {"task": "generate"}
"""Values beside the default that ask for what is done anyway."""


def is_default(flag: KnownFlag, value: Any) -> bool:
    """Whether a value asks for nothing: None, empty, or vLLM's default."""
    return value is None or value in ("", [], {}) or value == flag.default


def judge(name: str, value: Any) -> str | None:
    """What a known flag with this value does: None if nothing was asked for, else the sentence to show.

    Raises SettingsError if the flag is refused and KeyError if it is not in the table.
    """
    flag = KNOWN_FLAGS[name]
    if is_default(flag, value) or value == _SAME_AS_DEFAULT.get(name):
        return None
    if flag.verdict == "refused":
        raise SettingsError(f"{name} cannot be used: {flag.sentence}")
    return flag.sentence


# --- no effect: the answer is the same with and without ---------------------------------------------

_add("no effect", "nothing is compiled or captured on the step's path that could be switched",
     enforce_eager=False, cudagraph_capture_sizes=_LIST, max_cudagraph_capture_size=None,
     compilation_config=_JSON, optimization_level=2, performance_mode="balanced",
     enable_cumem_allocator=False, disable_custom_all_reduce=False)  # fmt: skip
_add("no effect", "long prompts are always cut to the step's budget, with the same result",
     enable_chunked_prefill=_BOOL, max_num_partial_prefills=1, max_long_partial_prefills=1)  # fmt: skip
_add("no effect", "shared prefixes are computed once in another way",
     disable_cascade_attn=True)  # fmt: skip
_add("no effect", "each operation's provider is chosen at load; see quire ops and --kernel-overrides",
     attention_backend=None, attention_config=_JSON, kernel_config=_JSON, ir_op_priority=_JSON,
     moe_backend="auto", linear_backend="auto", mamba_backend="triton", mamba_ssu_algorithm=None,
     gdn_prefill_backend=None, kda_prefill_backend=None, enable_flashinfer_autotune=_BOOL,
     enable_bf16x3_router_gemm=_BOOL, all2all_backend="allgather_reducescatter")  # fmt: skip
_add("no effect", "preempted requests are computed again, nothing is swapped",
     swap_space=4)  # fmt: skip
_add("no effect", "only config, tokenizer and safetensors files are downloaded, and mapped into memory",
     ignore_patterns=_LIST, safetensors_load_strategy=None,
     safetensors_prefetch_num_threads=None, safetensors_prefetch_block_size=None,
     max_parallel_loading_workers=None, pt_load_map_location="cpu", code_revision=None,
     model_weights="")  # fmt: skip
_add("no effect", "metrics are always on; --disable-log-stats switches them off",
     enable_metrics=False, show_hidden_metrics_for_version=None, cudagraph_metrics=False,
     enable_mm_processor_stats=False, aggregate_engine_logging=False,
     enable_layerwise_nvtx_tracing=False, jit_monitor_mode="warn", jit_monitor_verbose=False)  # fmt: skip
_add("no effect", "the log level is QUIRE_LOG_LEVEL or --uvicorn-log-level",
     log_level=None)  # fmt: skip
_add("no effect", "requests are logged only with --enable-log-requests",
     disable_log_requests=False)  # fmt: skip
_add("no effect", "the request head is limited by --max-header-bytes",
     h11_max_incomplete_event_size=4194304, h11_max_header_count=256)  # fmt: skip
_add("no effect", "prompts are tokenised in one place",
     renderer_num_workers=1)  # fmt: skip
_add("no effect", "one request's blocks are admitted as they are needed, and preemption is exact",
     scheduler_reserve_full_isl=True, watermark=0.0, prefill_schedule_interval=1,
     disable_hybrid_kv_cache_manager=_BOOL)  # fmt: skip
_add("no effect", "messages between processes do not depend on how many devices there are",
     distributed_timeout_seconds=None, cpu_distributed_timeout_seconds=None,
     disable_nccl_for_dp_synchronization=_BOOL, master_addr="127.0.0.1", master_port=29501,
     ray_workers_use_nsight=False, data_parallel_address=None, data_parallel_rpc_port=29550,
     data_parallel_backend="mp", data_parallel_supervisor_port=9256,
     dp_supervisor_probe_interval_s=5.0, dp_supervisor_probe_timeout_s=5.0,
     dp_supervisor_probe_failure_threshold=3)  # fmt: skip
_add("no effect", "there is no media, adapter or expert for it to act on",
     mm_processor_cache_gb=4.0, mm_processor_cache_type="lru", mm_hasher_algorithm="blake3",
     mm_shm_cache_max_object_size_mb=128, mm_encoder_tp_mode="weights",
     mm_encoder_attn_backend=None, mm_encoder_attn_dtype=None, mm_encoder_fp8_scale_path=None,
     mm_encoder_fp8_scale_save_path=None, mm_encoder_fp8_scale_save_margin=1.5,
     skip_mm_profiling=False, mm_tensor_ipc="direct_rpc", mm_processor_device="auto",
     mm_ipc_gpu_memory_gb=0.0, mm_device_do_normalize=_BOOL, disable_mm_preprocessor_cache=False,
     limit_mm_per_prompt=_JSON, media_io_kwargs=_JSON, mm_processor_kwargs=_JSON,
     interleave_mm_strings=False, disable_chunked_mm_input=False, language_model_only=False,
     allowed_local_media_path="", allowed_media_domains=_LIST, video_pruning_rate=None,
     video_pruning_method="evs", enable_multimodal_encoder_data_parallel=False,
     expert_placement_strategy="linear", enable_ep_weight_filter=False,
     max_loras=1, max_lora_rank=16, max_cpu_loras=None, lora_dtype="auto",
     fully_sharded_loras=False, lora_target_modules=_LIST, specialize_active_lora=False,
     enable_mixed_moe_lora_format=False, enable_moe_shared_loras=False,
     enable_tower_connector_lora=False, lora_extra_vocab_size=None, long_lora_scaling_factors=None,
     enable_flash_late_interaction=True)  # fmt: skip
_add("no effect", "a recurrent state is kept wherever --mamba-block-size tokens end, and never rounded",
     mamba_cache_mode="none", enable_mamba_cache_stochastic_rounding=False,
     mamba_cache_philox_rounds=0, use_replayssm=False, replayssm_buffer_len=16)  # fmt: skip
_add("no effect", "there are no routes for it to act on",
     cohere_is_reasoning_model=True,
     cohere_format="cmd4")  # fmt: skip
_add("no effect", "the sampling noise is drawn in float64 always",
     use_fp64_gumbel=False)  # fmt: skip
_add("no effect", "an unknown variable is named in a warning",
     fail_on_environ_validation=False)  # fmt: skip
_add("no effect", "the texts of requests and answers are not logged",
     enable_log_deltas=True, max_log_len=None)  # fmt: skip
_add("no effect", "there is one engine type and one implementation of each architecture",
     hf_config_path=None, additional_config=_JSON, offload_backend="auto")  # fmt: skip

# --- refused: it asks for something that is not there -----------------------------------------------

_add("refused", "recurrent states are float32: one that is rounded where a chunk happens to end would make "
     "an answer depend on its chunks",
     mamba_cache_dtype="auto", mamba_ssm_cache_dtype="auto")  # fmt: skip
_add("refused", "a checkpoint's own settings are read; --quantization makes fewer bits of plain weights",
     quantization_config=_JSON, allow_deprecated_quantization=False,
     quantization_param_path=None, kv_cache_dtype_skip_layers=[])  # fmt: skip
_add("refused", "scales measured on the first batch would make answers depend on what was asked first; "
     "--kv-cache-dtype fp8_per_token_head measures one for each token and head",
     calculate_kv_scales=False)  # fmt: skip
_add("refused", "this version runs on one device; start one server for each device instead",
     pipeline_parallel_size=1, data_parallel_size=1, data_parallel_rank=None,
     data_parallel_start_rank=None, data_parallel_size_local=None, data_parallel_hybrid_lb=False,
     data_parallel_external_lb=False, data_parallel_multi_port_external_lb=False,
     decode_context_parallel_size=1, prefill_context_parallel_size=1, dcp_comm_backend="ag_rs",
     dcp_kv_cache_interleave_size=1, cp_kv_cache_interleave_size=1, nnodes=1, node_rank=0,
     distributed_executor_backend=None, enable_expert_parallel=False, enable_elastic_ep=False,
     enable_eplb=False, eplb_config=_JSON, enable_dbo=False, ubatch_size=0,
     dbo_decode_token_threshold=32, dbo_prefill_token_threshold=512, device_ids=None,
     enable_fault_tolerance=False, fault_tolerance_config=_JSON, headless=False)  # fmt: skip
_add("refused", "one server process answers; put several servers behind a proxy instead",
     api_server_count=1)  # fmt: skip
_add("refused", "memory binding is not set by this version; start Quire under numactl instead",
     numa_bind=False, numa_bind_nodes=_LIST, numa_bind_cpus=_LIST)  # fmt: skip
_add("refused", "adapters are not served by this version; merge the adapter into the weights",
     enable_lora=False, lora_modules=_LIST, default_mm_loras=_JSON)  # fmt: skip
_add("refused", "speculative decoding is not served by this version; the answers would be the same",
     speculative_config=_JSON, spec_method=None, spec_model=None, spec_tokens=None,
     speculative_model=None, num_speculative_tokens=None, diffusion_config=_JSON,
     max_num_scheduled_tokens=None)  # fmt: skip
_add("refused", "the cache stays on its device in this version; nothing is moved elsewhere",
     kv_transfer_config=_JSON, kv_events_config=_JSON, ec_transfer_config=_JSON,
     kv_offloading_size=None, kv_offloading_backend="native", kv_sharing_fast_prefill=False,
     prefix_match_unit=None)  # fmt: skip
_add("refused", "weights stay on their device in this version; use a smaller model",
     cpu_offload_gb=0.0, cpu_offload_params=_LIST, offload_group_size=0, offload_num_in_group=1,
     offload_prefetch_step=1, offload_params=_LIST, enable_sleep_mode=False,
     weight_transfer_config=_JSON)  # fmt: skip
_add("refused", "the form of the reasoning is chosen with --reasoning-parser",
     reasoning_config=_JSON)  # fmt: skip
_add("refused", "it is an old name; use --runner, and --convert for embed or classify",
     task="auto")  # fmt: skip
_add("refused", "prompts are text, token ids or prompt_embeds in this version",
     enable_mm_embeds=False, mm_encoder_only=False)  # fmt: skip
_add("refused", "code from outside is not loaded by this version",
     model_class_overrides=_JSON, logits_processor_pattern=None,
     scheduler_cls=None, worker_cls="auto", worker_extension_cls="")  # fmt: skip
_add("refused", "attention computes in float32 always", override_attention_dtype=None)  # fmt: skip
_add("refused", "the window belongs to the model; lower --max-model-len to the window instead",
     disable_sliding_window=False)  # fmt: skip
_add("refused", "there are no routed experts to return", enable_return_routed_experts=False)  # fmt: skip
_add("refused", "traces of requests are not written by this version; see /metrics",
     otlp_traces_endpoint=None, collect_detailed_traces=_LIST,
     kv_cache_metrics=False, kv_cache_metrics_sample=0.01, enable_mfu_metrics=False,
     enable_logging_iteration_details=False)  # fmt: skip
_add("refused", "only HTTP is served by this version; /inference/v1/generate takes and gives token ids",
     grpc=False)  # fmt: skip
_add("refused", "the log goes to standard error, at QUIRE_LOG_LEVEL; outputs are not logged",
     log_config_file=None, enable_log_outputs=False, log_error_stack=False)  # fmt: skip
