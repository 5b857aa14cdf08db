"""How text is cut before tokens of byte-level BPE are merged, by `tokenizer.ggml.pre`.

Sources: the tokenizer.json of the families, and the ggml project's table of names.
"""

from __future__ import annotations

from typing import Any

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _SLASH_TAIL = r"[^\r\n\p{L}\p{N}]?", r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_WORDS}\p{{N}}{{1,3}}|{_TAIL}"
_QWEN2 = rf"{_WORDS}\p{{N}}|{_TAIL}"
_QWEN35 = (
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    rf"{_START}{_UPPER}*{_LOWER}+{_SHORT}?|{_START}{_UPPER}+{_LOWER}*{_SHORT}?|"
    rf"\p{{N}}{{1,3}}|{_SLASH_TAIL}"
)
_TEKKEN = rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASH_TAIL}"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|"
    r"\s+(?!\S)|\s+"
)
_SEED = rf"{_WORDS}\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGITS = r"\p{N}"
_HAN = r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, _DIGITS)
_UNNAMED = (
    r"[\u0560-\u0588\u10c7-\u10ff\u1c80-\u1c8f\u2d00-\u2d2d\ua790-\uab68"
    "\U00010570-\U000105bc\U00016e40-\U00016e7f\U0001d400-\U0001d7cb\U0001df00-\U0001df1e]"
)
"""Letters with case that DeepSeek's list of them leaves out: Armenian's and Georgian's small ones, among others."""
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?(?:(?!{_UNNAMED})[\p{{Lu}}\p{{Ll}}\p{{Lt}}])+",
    r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _HAN,
    r"\p{N}+",
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

_GPT2_NAMES = (
    *("default", "gpt-2", "gpt2", "phi-2", "olmo", "granite-docling", "mpt", "exaone4", "trillion"),
    *("roberta-bpe", "gigachat", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es"),
    *("jina-v2-de", "jina-v2-code", "jina-v1-en", "a.x-4.0", "jais"),
)
_LLAMA3_NAMES = (
    *("llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx", "falcon3", "falcon-h1", "lfm2"),
    *("chatglm-bpe", "glm4", "glm5"),
)
_QWEN2_NAMES = ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "solar-open")

CUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_GPT2_NAMES, ()),
    **dict.fromkeys(_LLAMA3_NAMES, (_LLAMA3,)),
    **dict.fromkeys(_QWEN2_NAMES, (_QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4", "o200k", "kanana2", "minimax-m2"), (_O200K,)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (_DIGITS,)),
    **dict.fromkeys(("exaone", "minerva-7b"), (_DIGITS,)),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK_V3),
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-llm": _DEEPSEEK_LLM,
    "qwen35": (_QWEN35,),
    "seed-coder": (_SEED,),
    "tekken": (_TEKKEN,),
}
"""What is cut out, one after the other; after nothing, or digits alone, GPT-2's rule cuts the rest."""
WHOLE_WORDS = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "tekken", "falcon3", "falcon-h1", "lfm2", "glm4", "glm5"}
)
"""Those whose words that are tokens are not merged."""
COMPOSED = frozenset({"qwen2", "deepseek-r1-qwen", "megrez", "qwen35"})
"""Those that compose characters first."""


def cut_parts(name: str) -> tuple[list[dict[str, Any]], bool]:
    """What of tokenizer.json cuts by a rule of CUTS, and whether GPT-2's rule follows."""
    patterns = CUTS[name]
    if patterns == (_DIGITS,):
        return [{"type": "Digits", "individual_digits": True}], True
    parts = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False}
        for one in patterns
    ]
    return parts, not patterns
