"""Which of our objects stand under which of vLLM's module paths, and why the others are not there.

How modules are made of these tables is `compat.vllm.modules`.
"""

from __future__ import annotations

_HERE = "quire.compat.vllm."
_PARAMS = "quire.protocol.params"
_RESULTS = "quire.protocol.results"
_POOLED = "quire.protocol.pooled_results"
_PROMPTS = "quire.protocol.prompts"
_PROCESSORS = "quire.protocol.logits_processors"
_PARSERS = "quire.frontend.parsers."
_ERRORS = "quire.protocol.errors"

SOURCES: dict[str, str] = {
    "LLM": "quire.llm",
    "ModelRegistry": "quire.models.registry",
    "IOProcessor": "quire.protocol.io_processors",
    "BaseModelLoader": "quire.models.loading.loaders",
    "register_model_loader": "quire.models.loading.loaders",
    "QuantizationConfig": "quire.quant.schemes.outside",
    "register_quantization_config": "quire.quant.schemes.outside",
    "TokenizerLike": "quire.models.loading.tokenizer_classes",
    "TokenizerRegistry": "quire.models.loading.tokenizer_classes",
    "EngineArgs": _HERE + "arguments",
    "AsyncEngineArgs": _HERE + "arguments",
    "FlexibleArgumentParser": _HERE + "arguments",
    "make_arg_parser": _HERE + "arguments",
    "CompilationConfig": _HERE + "classes",
    "PoolerConfig": _HERE + "classes",
    "UsageContext": _HERE + "classes",
    "AttentionConfig": _HERE + "classes",
    "cleanup_dist_env_and_memory": _HERE + "helpers",
    "current_platform": _HERE + "helpers",
    "destroy_distributed_environment": _HERE + "helpers",
    "destroy_model_parallel": _HERE + "helpers",
    "get_tokenizer": _HERE + "helpers",
    "init_logger": _HERE + "helpers",
    "random_uuid": _HERE + "helpers",
    "__version__": _HERE + "helpers",
    "__version_tuple__": _HERE + "helpers",
    "LLMEngine": "quire.llm_engine",
    "AsyncLLM": "quire.async_llm",
    "AsyncLLMEngine": "quire.async_llm",
    "BeamSearchOutput": "quire.beam_search",
    "BeamSearchSequence": "quire.beam_search",
    "SamplingParams": _PARAMS,
    "BeamSearchParams": _PARAMS,
    "PoolingParams": _PARAMS,
    "RepetitionDetectionParams": _PARAMS,
    "RequestOutputKind": _PARAMS,
    "SamplingType": _PARAMS,
    "StructuredOutputsParams": _PARAMS,
    "PoolingOutput": _POOLED,
    "PoolingRequestOutput": _POOLED,
    "EmbeddingOutput": _POOLED,
    "EmbeddingRequestOutput": _POOLED,
    "ClassificationOutput": _POOLED,
    "ClassificationRequestOutput": _POOLED,
    "ScoringOutput": _POOLED,
    "ScoringRequestOutput": _POOLED,
    "RequestOutput": _RESULTS,
    "CompletionOutput": _RESULTS,
    "Logprob": _RESULTS,
    "RequestStateStats": _RESULTS,
    "PromptType": _PROMPTS,
    "TextPrompt": _PROMPTS,
    "TokensPrompt": _PROMPTS,
    "EmbedsPrompt": _PROMPTS,
    "SingletonPrompt": _PROMPTS,
    "ExplicitEncoderDecoderPrompt": _PROMPTS,
    "build_explicit_enc_dec_prompt": _PROMPTS,
    "zip_enc_dec_prompts": _PROMPTS,
    "to_enc_dec_tuple_list": _PROMPTS,
    "LogitsProcessor": _PROCESSORS,
    "AdapterLogitsProcessor": _PROCESSORS,
    "BatchUpdate": _PROCESSORS,
    "MoveDirectionality": _PROCESSORS,
    "RequestLogitsProcessor": _PROCESSORS,
    "EngineDeadError": _ERRORS,
    "EngineGenerateError": _ERRORS + ":RequestFailedError",
    "AsyncEngineDeadError": _ERRORS + ":EngineDeadError",
    "EngineClient": "quire.async_llm:AsyncLLM",
    "VllmConfig": "quire.config.plugins:PluginConfig",
    "ModelConfig": "quire.config.schema",
    "CacheConfig": "quire.config.schema",
    "LoadConfig": "quire.config.schema",
    "ParallelConfig": "quire.config.schema",
    "SchedulerConfig": "quire.config.schema",
    "Metric": "quire.metrics.reader",
    "Counter": "quire.metrics.reader",
    "Gauge": "quire.metrics.reader",
    "Histogram": "quire.metrics.reader",
    "ToolParser": _PARSERS + "classes",
    "ToolParserManager": _PARSERS + "plugins",
    "ReasoningParser": _PARSERS + "classes",
    "ReasoningParserManager": _PARSERS + "plugins",
    "ExtractedToolCallInformation": _PARSERS + "classes",
    "FunctionCall": _PARSERS + "classes",
    "ToolCall": _PARSERS + "classes",
    "DeltaMessage": _HERE + "classes",
    "DeltaToolCall": _HERE + "classes",
    "DeltaFunctionCall": _HERE + "classes",
    "ChatCompletionRequest": "quire.server.schema.chat:ChatRequest",
    "StatLoggerBase": "quire.metrics.stat_loggers",
    "SchedulerStats": "quire.metrics.stat_loggers",
    "IterationStats": "quire.metrics.stat_loggers",
    "layerwise_profile": _HERE + "layerwise",
    "LayerwiseProfileResults": _HERE + "layerwise",
    "load_general_plugins": "quire.config.plugins:load_general",
}
"""Public name -> the module of ours that has it, with another name there behind a colon."""

_LLM_NAMES = "LLM LLMEngine AsyncLLMEngine EngineArgs AsyncEngineArgs ModelRegistry "
_PROMPT_NAMES = "PromptType TextPrompt TokensPrompt "
_PAIR_NAMES = (
    "EmbedsPrompt SingletonPrompt ExplicitEncoderDecoderPrompt build_explicit_enc_dec_prompt "
    "zip_enc_dec_prompts to_enc_dec_tuple_list"
)
_OUTPUT_NAMES = (
    "RequestOutput CompletionOutput PoolingOutput PoolingRequestOutput EmbeddingOutput "
    "EmbeddingRequestOutput ClassificationOutput ClassificationRequestOutput ScoringOutput "
    "ScoringRequestOutput "
)
_PROCESSOR_NAMES = (
    "LogitsProcessor AdapterLogitsProcessor BatchUpdate MoveDirectionality RequestLogitsProcessor"
)
_TOOL_NAMES = "ToolParser ToolParserManager"
_REASONING_NAMES = "ReasoningParser ReasoningParserManager"
_WIRE_NAMES = (
    "ChatCompletionRequest DeltaMessage DeltaToolCall DeltaFunctionCall ExtractedToolCallInformation "
    "FunctionCall ToolCall"
)
_CLEANUP = "cleanup_dist_env_and_memory destroy_distributed_environment destroy_model_parallel"

MODULES: dict[str, str] = {
    "vllm": _LLM_NAMES
    + _PROMPT_NAMES
    + _OUTPUT_NAMES
    + "SamplingParams PoolingParams __version__ __version_tuple__",
    "vllm.beam_search": "BeamSearchOutput BeamSearchSequence",
    "vllm.config": "VllmConfig ModelConfig CacheConfig LoadConfig ParallelConfig SchedulerConfig "
    "CompilationConfig AttentionConfig PoolerConfig",
    "vllm.distributed": _CLEANUP,
    "vllm.distributed.parallel_state": _CLEANUP,
    "vllm.engine": "",
    "vllm.engine.arg_utils": "EngineArgs AsyncEngineArgs",
    "vllm.engine.async_llm_engine": "AsyncLLMEngine AsyncEngineDeadError",
    "vllm.engine.llm_engine": "LLMEngine",
    "vllm.engine.protocol": "EngineClient",
    "vllm.entrypoints": "",
    "vllm.entrypoints.cli": "",
    "vllm.entrypoints.llm": "LLM",
    "vllm.entrypoints.openai": "",
    "vllm.entrypoints.openai.cli_args": "make_arg_parser",
    "vllm.entrypoints.openai.chat_completion": "",
    "vllm.entrypoints.openai.chat_completion.protocol": "ChatCompletionRequest",
    "vllm.entrypoints.openai.engine": "",
    "vllm.entrypoints.openai.engine.protocol": _WIRE_NAMES,
    "vllm.entrypoints.openai.protocol": _WIRE_NAMES,
    "vllm.entrypoints.openai.tool_parsers": _TOOL_NAMES,
    "vllm.entrypoints.openai.tool_parsers.abstract_tool_parser": _TOOL_NAMES,
    "vllm.inputs": _PROMPT_NAMES + _PAIR_NAMES,
    "vllm.inputs.data": _PROMPT_NAMES + _PAIR_NAMES,
    "vllm.logger": "init_logger",
    "vllm.logprobs": "Logprob",
    "vllm.model_executor": "",
    "vllm.model_executor.layers": "",
    "vllm.model_executor.layers.quantization": "QuantizationConfig register_quantization_config",
    "vllm.model_executor.layers.quantization.base_config": "QuantizationConfig",
    "vllm.model_executor.model_loader": "BaseModelLoader register_model_loader",
    "vllm.model_executor.model_loader.base_loader": "BaseModelLoader",
    "vllm.model_executor.models": "ModelRegistry",
    "vllm.model_executor.models.registry": "ModelRegistry",
    "vllm.outputs": _OUTPUT_NAMES,
    "vllm.platforms": "current_platform",
    "vllm.plugins": "load_general_plugins",
    "vllm.plugins.io_processors": "IOProcessor",
    "vllm.plugins.io_processors.interface": "IOProcessor",
    "vllm.pooling_params": "PoolingParams",
    "vllm.profiler": "layerwise_profile",
    "vllm.profiler.layerwise_profile": "layerwise_profile LayerwiseProfileResults",
    "vllm.reasoning": _REASONING_NAMES,
    "vllm.reasoning.abs_reasoning_parsers": _REASONING_NAMES,
    "vllm.sampling_params": "SamplingParams BeamSearchParams StructuredOutputsParams "
    "RequestOutputKind SamplingType RepetitionDetectionParams",
    "vllm.sequence": "Logprob",
    "vllm.tokenizers": "TokenizerLike TokenizerRegistry get_tokenizer",
    "vllm.tokenizers.protocol": "TokenizerLike",
    "vllm.tokenizers.registry": "TokenizerRegistry get_tokenizer",
    "vllm.tool_parsers": _TOOL_NAMES,
    "vllm.tool_parsers.abstract_tool_parser": _TOOL_NAMES,
    "vllm.transformers_utils": "",
    "vllm.transformers_utils.tokenizer": "get_tokenizer",
    "vllm.usage": "",
    "vllm.usage.usage_lib": "UsageContext",
    "vllm.utils": "FlexibleArgumentParser random_uuid",
    "vllm.utils.argparse_utils": "FlexibleArgumentParser",
    "vllm.v1": "",
    "vllm.v1.engine": "",
    "vllm.v1.engine.async_llm": "AsyncLLM",
    "vllm.v1.engine.exceptions": "EngineDeadError EngineGenerateError",
    "vllm.v1.engine.llm_engine": "LLMEngine",
    "vllm.v1.metrics": "",
    "vllm.v1.metrics.loggers": "StatLoggerBase",
    "vllm.v1.metrics.reader": "Metric Counter Gauge Histogram",
    "vllm.v1.metrics.stats": "SchedulerStats IterationStats RequestStateStats",
    "vllm.v1.sample": "",
    "vllm.v1.sample.logits_processor": _PROCESSOR_NAMES,
    "vllm.v1.sample.logits_processor.interface": _PROCESSOR_NAMES,
    "vllm.version": "__version__ __version_tuple__",
}
"""vLLM's module -> the public names that it shows here."""

WHOLE: dict[str, str] = {"vllm.envs": _HERE + "envs"}
"""Modules that are a module of ours as it stands."""

PROGRAMS: dict[str, str] = {
    "vllm.__main__": "vllm",
    "vllm.collect_env": "collect_env",
    "vllm.entrypoints.api_server": "demo_server",
    "vllm.entrypoints.cli.main": "vllm",
    "vllm.entrypoints.openai.api_server": "api_server",
    "vllm.entrypoints.openai.api_server_benchmark": "server_benchmark",
    "vllm.entrypoints.openai.run_batch": "run_batch",
}
"""Modules that are run with `python -m`, and their function in `compat.vllm.commands`."""

_MEDIA = "images, audio and video are not served"
_ADAPTERS = "LoRA adapters are not served; merge the adapter into the weights"
_OLD = "it is an old name: use SamplingParams(structured_outputs=StructuredOutputsParams(...))"
_INSIDE = (
    "it is part of vLLM's inside, which Quire does not have; describe a model or a kernel instead"
)

REASONS: dict[str, str] = {
    "GuidedDecodingParams": _OLD,
    "FlatLogprobs": "log-probabilities are lists of dictionaries here",
    "initialize_ray_cluster": "one engine runs on one device here",
    "KVTransferConfig": "cache blocks stay on their device here",
    "LoRARequest": _ADAPTERS,
    "vllm.lora": _ADAPTERS,
    "vllm.assets": _MEDIA,
    "vllm.multimodal": _MEDIA,
    "vllm.model_executor": _INSIDE,
    "vllm.attention": _INSIDE,
    "vllm.compilation": _INSIDE,
    "vllm.distributed": "one engine runs on one device here",
    "vllm.worker": _INSIDE,
    "vllm.v1": _INSIDE,
    "vllm.forward_context": _INSIDE,
    "vllm.triton_utils": "Quire shows no kernels of its own as Triton helpers",
}
"""Why a name, or what lies under a module, is missing; the longest module that fits is taken."""
