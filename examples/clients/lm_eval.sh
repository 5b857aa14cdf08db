#!/usr/bin/env bash
# A task of your own with lm-evaluation-harness: `examples/clients/lm_eval.sh [URL]`, from the root of the repository.
# Needs `pip install "lm-eval[api]"`, and a server started with --enable-tokenizer-info-endpoint.
set -euo pipefail
url="${1:-http://127.0.0.1:8000}"

# Log-probabilities of prompts; the server's own tokenizer splits them.
lm_eval --model local-completions --tasks quire_capitals --include_path examples/clients/lm_eval_tasks \
  --model_args "model=quire-demo,base_url=$url/v1/completions,tokenizer_backend=remote,num_concurrent=4"

# Answers in words.
lm_eval --model local-chat-completions --tasks quire_capitals_chat --apply_chat_template \
  --include_path examples/clients/lm_eval_tasks \
  --model_args "model=quire-demo,base_url=$url/v1/chat/completions,num_concurrent=4"
