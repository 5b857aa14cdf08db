#!/usr/bin/env bash
# The API with curl: `examples/clients/curl.sh [URL]`.
set -euo pipefail
url="${1:-http://127.0.0.1:8000}"

# An answer. With one model served, "model" may be left out.
curl -s "$url/v1/chat/completions" -H 'Content-Type: application/json' \
  -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
echo

# The same in pieces, as server-sent events.
curl -sN "$url/v1/chat/completions" -H 'Content-Type: application/json' \
  -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "stream": true}'

# An answer that a schema allows.
curl -s "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{
  "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0,
  "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {
    "type": "object", "properties": {"capital": {"enum": ["Paris", "Rome"]}},
    "required": ["capital"], "additionalProperties": false}}}}'
echo

# Anthropic's form.
curl -s "$url/v1/messages" -H 'Content-Type: application/json' -d '{"model": "quire-demo", "max_tokens": 64,
  "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
echo

# Tokens, models, health, metrics.
curl -s "$url/tokenize" -H 'Content-Type: application/json' -d '{"prompt": "Hello!"}'
echo
curl -s "$url/v1/models"
echo
curl -s -o /dev/null -w '%{http_code}\n' "$url/health"
curl -s "$url/metrics" | grep '^vllm:generation_tokens_total'
