"""What a case of an architecture is, and the values that the cases have in common.

The cases are in `families`, `families_dense`, `families_moe` and `families_more`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROMPT_LEN = 200


@dataclass(frozen=True)
class Case:
    """One config; `max_len` is what the decoder is built for.

    unseen  fields that this case cannot show, as `test_parity.mutations` names them; another case
            of the same architecture must show them.
    quiet   factor of all matrices and biases that write to the residual stream: where eps is a
            constant, only a stream as small as that shows it. OPT's names are known, and Llama's.
    """

    config: dict[str, Any]
    max_len: int = 256
    unseen: frozenset[str] = frozenset()
    quiet: float = 1.0


COMMON = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 0.03,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CLASSIC = {
    "vocab_size": 97,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
