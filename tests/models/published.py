"""config.json as published checkpoints have it: their true keys and values, and a shrunken copy of each."""

from __future__ import annotations

import json
from typing import Any

PUBLISHED: dict[str, str] = {
    "llama-2-7b": """
{"_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
 "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
 "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
 "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1,
 "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16",
 "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000}
""",
    "llama-3.2-1b": """
{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
 "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
 "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
 "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
 "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"},
 "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
 "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256}
""",
    "mistral-7b-v0.1": """
{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
 "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
 "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
 "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
 "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}
""",
    "qwen2.5-0.5b": """
{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
 "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
 "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
 "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
 "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
 "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
 "use_sliding_window": false, "vocab_size": 151936}
""",
    "qwen3-0.6b": """
{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
 "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
 "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
 "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
 "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 151936}
""",
    "gemma-2-2b": """
{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
 "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
 "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
 "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2",
 "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0,
 "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
 "torch_dtype": "float32", "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256000}
""",
    "llama-3.1-8b": """
{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
 "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
 "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
 "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
 "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"},
 "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256}
""",
    "mistral-7b-instruct-v0.3": """
{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
 "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
 "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
 "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
 "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "transformers_version": "4.42.0.dev0", "use_cache": true, "vocab_size": 32768}
""",
    "mistral-nemo-12b": """
{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
 "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
 "intermediate_size": 14336, "max_position_embeddings": 131072, "model_type": "mistral",
 "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
 "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true,
 "vocab_size": 131072}
""",
    "qwen2-1.5b": """
{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
 "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02,
 "intermediate_size": 8960, "max_position_embeddings": 131072, "max_window_layers": 28,
 "model_type": "qwen2", "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2,
 "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": true,
 "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 151936}
""",
    "qwen2.5-7b-instruct": """
{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
 "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
 "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 28,
 "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
 "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 152064}
""",
    "qwen3-8b": """
{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
 "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12288,
 "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
 "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 151936}
""",
    "qwen3-4b-instruct-2507": """
{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
 "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 9728,
 "max_position_embeddings": 262144, "max_window_layers": 36, "model_type": "qwen3",
 "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 5000000, "sliding_window": null, "tie_word_embeddings": true,
 "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 151936}
""",
    "gemma-2b": """
{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu",
 "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384,
 "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8,
 "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
 "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 256000}
""",
    "gemma-7b": """
{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu",
 "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 24576,
 "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 16,
 "num_hidden_layers": 28, "num_key_value_heads": 16, "pad_token_id": 0, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
 "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 256000}
""",
    "gemma-1.1-2b-it": """
{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
 "hidden_activation": "gelu_pytorch_tanh",
 "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384,
 "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8,
 "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
 "transformers_version": "4.40.0.dev0", "use_cache": true, "vocab_size": 256000}
""",
    "gemma-2-9b": """
{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
 "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
 "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3584, "initializer_range": 0.02,
 "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "gemma2",
 "num_attention_heads": 16, "num_hidden_layers": 42, "num_key_value_heads": 8, "pad_token_id": 0,
 "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
 "sliding_window_size": 4096, "torch_dtype": "float32", "transformers_version": "4.42.0.dev0", "use_cache": true,
 "vocab_size": 256000}
""",
    "gemma-2-27b": """
{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
 "final_logit_softcapping": 30.0, "head_dim": 128, "hidden_act": "gelu_pytorch_tanh",
 "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608, "initializer_range": 0.02,
 "intermediate_size": 36864, "max_position_embeddings": 8192, "model_type": "gemma2",
 "num_attention_heads": 32, "num_hidden_layers": 46, "num_key_value_heads": 16, "pad_token_id": 0,
 "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
 "sliding_window_size": 4096, "torch_dtype": "float32", "transformers_version": "4.42.0.dev0", "use_cache": true,
 "vocab_size": 256000}
""",
    "gemma-3-270m": """
{"_sliding_window_pattern": 6, "architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
 "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2, "eos_token_id": 1,
 "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
 "hidden_size": 640, "initializer_range": 0.02, "intermediate_size": 2048,
 "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
  "sliding_attention", "full_attention", "sliding_attention", "sliding_attention",
  "sliding_attention", "sliding_attention", "sliding_attention", "full_attention",
  "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
  "sliding_attention", "full_attention"],
 "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
 "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
 "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1000000.0,
 "sliding_window": 512, "torch_dtype": "bfloat16", "transformers_version": "4.55.0.dev0",
 "use_bidirectional_attention": false, "use_cache": true, "vocab_size": 262144}
""",
    "gemma-3-1b-it": """
{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
 "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
 "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
 "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
 "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
 "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
 "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
 "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true,
 "vocab_size": 262144}
""",
    "gemma-3-4b-text": """
{"architectures": ["Gemma3ForCausalLM"], "eos_token_id": [1, 106], "hidden_size": 2560,
 "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
 "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
""",
    "phi-3-mini-4k": """
{"_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"],
 "attention_bias": false, "attention_dropout": 0.0,
 "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
  "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
 "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
 "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096,
 "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
 "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
 "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047,
 "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.40.2",
 "use_cache": true, "vocab_size": 32064}
""",
    "phi-3.5-mini": """
{"_name_or_path": "Phi-3.5-mini-instruct", "architectures": ["Phi3ForCausalLM"],
 "attention_bias": false, "attention_dropout": 0.0,
 "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
  "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
 "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
 "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
 "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
 "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
 "rms_norm_eps": 1e-05,
 "rope_scaling": {"long_factor": [
   1.0800000429153442, 1.1100000143051147, 1.1399999856948853, 1.340000033378601, 1.5899999141693115,
   1.600000023841858, 1.6200000047683716, 2.620000123977661, 3.2300000190734863, 3.2300000190734863,
   4.789999961853027, 7.400000095367432, 7.700000286102295, 9.09000015258789, 12.199999809265137,
   17.670000076293945, 24.46000099182129, 28.57000160217285, 30.420001983642578, 30.840002059936523,
   32.590003967285156, 32.93000411987305, 42.320003509521484, 44.96000289916992, 50.340003967285156,
   50.45000457763672, 57.55000305175781, 57.93000411987305, 58.21000289916992, 60.1400032043457,
   62.61000442504883, 62.62000274658203, 62.71000289916992, 63.1400032043457, 63.1400032043457,
   63.77000427246094, 63.93000411987305, 63.96000289916992, 63.970001220703125, 64.02999877929688,
   64.06999969482422, 64.08000183105469, 64.12000274658203, 64.41000366210938, 64.4800033569336,
   64.51000213623047, 64.52999877929688, 64.83999633789062],
  "short_factor": [
   1.0, 1.0199999809265137, 1.0299999713897705, 1.0299999713897705, 1.0499999523162842,
   1.0499999523162842, 1.0499999523162842, 1.0499999523162842, 1.0499999523162842, 1.0699999332427979,
   1.0999999046325684, 1.1099998950958252, 1.1599998474121094, 1.1599998474121094, 1.1699998378753662,
   1.2899998426437378, 1.339999794960022, 1.679999828338623, 1.7899998426437378, 1.8199998140335083,
   1.8499997854232788, 1.8799997568130493, 1.9099997282028198, 1.9399996995925903, 1.9899996519088745,
   2.0199997425079346, 2.0199997425079346, 2.0199997425079346, 2.0199997425079346, 2.0199997425079346,
   2.0199997425079346, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914,
   2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914,
   2.0799996852874756, 2.0899996757507324, 2.189999580383301, 2.2199995517730713, 2.5899994373321533,
   2.729999542236328, 2.749999523162842, 2.8399994373321533],
  "type": "longrope"},
 "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "transformers_version": "4.43.3", "use_cache": true, "vocab_size": 32064}
""",
    "phi-4-mini": """
{"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
  "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
  "AutoTokenizer": "Xenova/gpt-4o"},
 "bos_token_id": 199999, "embd_pdrop": 0.0, "eos_token_id": 199999, "full_attn_mod": 1,
 "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192,
 "interpolate_factor": 1, "lm_head_bias": false, "max_position_embeddings": 131072, "mlp_bias": false,
 "model_type": "phi3", "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8,
 "original_max_position_embeddings": 4096, "pad_token_id": 199999, "partial_rotary_factor": 0.75,
 "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
 "rope_scaling": {"long_factor": [
   1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
   2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533,
   5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651,
   14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1,
   32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16,
   47.77],
  "short_factor": [
   1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
   1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
   1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
  "type": "longrope"},
 "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": true,
 "torch_dtype": "bfloat16", "transformers_version": "4.45.0", "use_cache": true, "vocab_size": 200064}
""",
    "phi-4": """
{"_name_or_path": "pretrained_hf_models/phi-4", "architectures": ["Phi3ForCausalLM"],
 "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 100257, "embd_pdrop": 0.0,
 "eos_token_id": 100265, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
 "intermediate_size": 17920, "max_position_embeddings": 16384, "model_type": "phi3",
 "num_attention_heads": 40, "num_hidden_layers": 40, "num_key_value_heads": 10,
 "original_max_position_embeddings": 16384, "pad_token_id": 100349, "resid_pdrop": 0.0,
 "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 250000, "sliding_window": null,
 "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.47.0",
 "use_cache": true, "vocab_size": 100352}
""",
    "gpt2-124m": """
{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
 "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
 "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
 "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
 "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
 "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}
""",
    "gpt2-xl": """
{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
 "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
 "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 1600, "n_head": 25,
 "n_layer": 48, "n_positions": 1024, "output_past": true, "resid_pdrop": 0.1, "summary_activation": null,
 "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
 "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}
""",
    "distilgpt2": """
{"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
 "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
 "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
 "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
 "n_layer": 6, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
 "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
 "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}
""",
    "opt-125m": """
{"_name_or_path": "facebook/opt-125m", "_remove_final_layer_norm": false, "activation_dropout": 0.0,
 "activation_function": "relu", "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0,
 "bos_token_id": 2, "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 3072,
 "hidden_size": 768, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
 "model_type": "opt", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
 "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": true,
 "vocab_size": 50272, "word_embed_proj_dim": 768}
""",
    "opt-1.3b": """
{"_name_or_path": "facebook/opt-1.3b", "_remove_final_layer_norm": false, "activation_dropout": 0.0,
 "activation_function": "relu", "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0,
 "bos_token_id": 2, "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 8192,
 "hidden_size": 2048, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
 "model_type": "opt", "num_attention_heads": 32, "num_hidden_layers": 24, "pad_token_id": 1,
 "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": true,
 "vocab_size": 50272, "word_embed_proj_dim": 2048}
""",
    "opt-6.7b": """
{"_name_or_path": "facebook/opt-6.7b", "_remove_final_layer_norm": false, "activation_dropout": 0.0,
 "activation_function": "relu", "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0,
 "bos_token_id": 2, "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 16384,
 "hidden_size": 4096, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
 "model_type": "opt", "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 1,
 "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": true,
 "vocab_size": 50272, "word_embed_proj_dim": 4096}
""",
    "pythia-160m": """
{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
 "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
 "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 12,
 "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
 "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true,
 "use_parallel_residual": true, "vocab_size": 50304}
""",
    "gpt-neox-20b": """
{"architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 0,
 "eos_token_id": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "hidden_size": 6144,
 "initializer_range": 0.02, "intermediate_size": 24576, "layer_norm_eps": 1e-05,
 "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 64,
 "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
 "torch_dtype": "float16", "transformers_version": "4.19.0.dev0", "use_cache": true,
 "vocab_size": 50432}
""",
    "redpajama-incite-3b": """
{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
 "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 10240, "layer_norm_eps": 1e-05,
 "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 32,
 "num_hidden_layers": 32, "rotary_emb_base": 10000, "rotary_pct": 1.0, "tie_word_embeddings": false,
 "torch_dtype": "float16", "transformers_version": "4.28.1", "use_cache": true,
 "use_parallel_residual": false, "vocab_size": 50432}
""",
    "olmo-2-0425-1b": """
{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
 "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "olmo2",
 "num_attention_heads": 16, "num_hidden_layers": 16, "num_key_value_heads": 16, "pad_token_id": 100277,
 "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
 "torch_dtype": "float32", "transformers_version": "4.47.0", "use_cache": true, "vocab_size": 100352}
""",
    "olmo-2-1124-7b": """
{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
 "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "olmo2",
 "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 100277,
 "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
 "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "use_cache": true, "vocab_size": 100352}
""",
    "olmo-2-0325-32b": """
{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
 "intermediate_size": 27648, "max_position_embeddings": 4096, "model_type": "olmo2",
 "num_attention_heads": 40, "num_hidden_layers": 64, "num_key_value_heads": 8, "pad_token_id": 100277,
 "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
 "torch_dtype": "float32", "transformers_version": "4.48.0", "use_cache": true, "vocab_size": 100352}
""",
    "command-r-v01": """
{"architectures": ["CohereForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 5, "eos_token_id": 255001, "hidden_act": "silu", "hidden_size": 8192,
 "initializer_range": 0.02, "intermediate_size": 22528, "layer_norm_eps": 1e-05,
 "logit_scale": 0.0625, "max_position_embeddings": 8192, "model_max_length": 131072,
 "model_type": "cohere",
 "num_attention_heads": 64, "num_hidden_layers": 40, "num_key_value_heads": 64, "pad_token_id": 0,
 "rope_theta": 8000000.0, "torch_dtype": "float16", "transformers_version": "4.38.2", "use_cache": true,
 "vocab_size": 256000}
""",
    "command-r-plus": """
{"architectures": ["CohereForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 5, "eos_token_id": 255001, "hidden_act": "silu", "hidden_size": 12288,
 "initializer_range": 0.02, "intermediate_size": 33792, "layer_norm_eps": 1e-05,
 "logit_scale": 0.8333333333333334, "max_position_embeddings": 8192, "model_max_length": 131072,
 "use_qk_norm": true, "model_type": "cohere",
 "num_attention_heads": 96, "num_hidden_layers": 64, "num_key_value_heads": 8, "pad_token_id": 0,
 "rope_theta": 75000000.0, "torch_dtype": "float16", "transformers_version": "4.40.0.dev0", "use_cache": true,
 "vocab_size": 256000}
""",
    "aya-23-8b": """
{"architectures": ["CohereForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 5, "eos_token_id": 255001, "hidden_act": "silu", "hidden_size": 4096,
 "initializer_range": 0.02, "intermediate_size": 14336, "layer_norm_eps": 1e-05,
 "logit_scale": 0.0625, "max_position_embeddings": 8192, "use_qk_norm": false, "model_type": "cohere",
 "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pad_token_id": 0,
 "rope_theta": 10000, "torch_dtype": "float16", "transformers_version": "4.40.0.dev0", "use_cache": true,
 "vocab_size": 256000}
""",
    "granite-3.0-8b": """
{"architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.1,
 "attention_multiplier": 0.0078125, "bos_token_id": 0, "embedding_multiplier": 12.0, "eos_token_id": 0,
 "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12800,
 "logits_scaling": 16.0, "max_position_embeddings": 4096, "mlp_bias": false, "model_type": "granite",
 "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "pad_token_id": 0,
 "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000,
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.46.0.dev0",
 "use_cache": true, "vocab_size": 49155}
""",
    "granite-3.1-2b": """
{"architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.1,
 "attention_multiplier": 0.015625, "bos_token_id": 0, "embedding_multiplier": 12.0, "eos_token_id": 0,
 "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
 "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "granite",
 "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "pad_token_id": 0,
 "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 5000000.0,
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.47.0",
 "use_cache": true, "vocab_size": 49155}
""",
    "granite-3.3-2b": """
{"architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.1,
 "attention_multiplier": 0.015625, "bos_token_id": 0, "embedding_multiplier": 12.0, "eos_token_id": 0,
 "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
 "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "granite",
 "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "pad_token_id": 0,
 "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000000.0,
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.49.0",
 "use_cache": true, "vocab_size": 49159}
""",
}
"""gemma-3-4b-text is the text part of a file for text and images, with the name of the text model and
the outer eos_token_id."""

_SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "ffn_dim": 80,
    "word_embed_proj_dim": 64,
}
SWITCH = 100  # tokens: where shrunken LongRoPE models change their factors


def config(name: str) -> dict[str, Any]:
    """A published config.json, parsed."""
    values: dict[str, Any] = json.loads(PUBLISHED[name])
    return values


def shrunk(name: str) -> dict[str, Any]:
    """The same keys with small sizes; grouping of heads stays, windows shrink with the prompt.

    A pattern of windows keeps one layer without, and LongRoPE's lists are thinned out evenly.
    """
    values = config(name)
    heads, kv_heads = values.get("num_attention_heads"), values.get("num_key_value_heads")
    values |= {key: value for key, value in _SMALL.items() if key in values}
    if kv_heads is not None:
        values["num_key_value_heads"] = 4 if heads == kv_heads else min(kv_heads, 2)
    if values.get("sliding_window"):
        values["sliding_window"] = 48
    if values["model_type"] == "gemma3_text":
        values |= {"num_hidden_layers": 7, "vocab_size": 97}
        values |= {"layer_types": values["layer_types"][:7]} if "layer_types" in values else {}
    scaling = values.get("rope_scaling") or {}
    if scaling.get("type") == "longrope":
        pairs = int(8 * values.get("partial_rotary_factor", 1.0))
        for key in ("long_factor", "short_factor"):
            scaling[key] = scaling[key][:: 48 // pairs][:pairs]
        values["original_max_position_embeddings"] = SWITCH
    return values
