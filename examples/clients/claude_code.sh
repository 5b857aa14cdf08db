#!/usr/bin/env bash
# Claude Code with a model of your own: `URL=… MODEL=… KEY=… examples/clients/claude_code.sh [words for claude]`.
set -euo pipefail
export ANTHROPIC_BASE_URL="${URL:-http://127.0.0.1:8000}" # without /v1
export ANTHROPIC_AUTH_TOKEN="${KEY:-none}"                # the server's --api-key
unset ANTHROPIC_API_KEY
model="${MODEL:-quire-demo}" # a name of /v1/models, for every kind of work
export ANTHROPIC_MODEL="$model"
export ANTHROPIC_DEFAULT_OPUS_MODEL="$model"
export ANTHROPIC_DEFAULT_SONNET_MODEL="$model"
export ANTHROPIC_DEFAULT_HAIKU_MODEL="$model"
export CLAUDE_CODE_SUBAGENT_MODEL="$model"
export CLAUDE_CODE_ATTRIBUTION_HEADER=0           # else each prompt begins differently and no prefix is found again
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 # nothing goes to other hosts
exec claude "$@"
