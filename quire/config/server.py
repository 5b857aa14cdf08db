"""The settings of the HTTP server, as one frozen leaf; those of the engine are `config.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from quire.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP server: where it listens, whom it answers, what it says."""

    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8000, "port to bind; 0 picks a free one")
    uds: str | None = setting(None, "path of a Unix socket to bind instead of host and port")
    api_key: list[str] = setting([], "accepted bearer keys; none: open", env="QUIRE_API_KEY")
    root_path: str = setting("", "path prefix behind a proxy")
    allowed_hosts: list[str] = setting(
        [], "Host names answered beside the bind address; * answers all"
    )
    allowed_origins: list[str] = setting([], "origins that browsers may call from (CORS)")
    allowed_methods: list[str] = setting(["*"], "methods that those origins may use")
    allowed_headers: list[str] = setting(["*"], "headers that those origins may send")
    allow_credentials: bool = setting(False, "let those origins send cookies and keys")
    ssl_keyfile: str | None = setting(None, "private key, PEM; with it the server speaks TLS")
    ssl_certfile: str | None = setting(None, "certificate chain, PEM")
    ssl_ca_certs: str | None = setting(None, "certificates that client certificates must chain to")
    ssl_cert_reqs: int = setting(0, "client certificates: 0 none, 1 optional, 2 required")
    ssl_ciphers: str | None = setting(None, "cipher list for TLS 1.2 and below")
    uvicorn_log_level: str = setting(
        "info",
        "log level of the HTTP server",
        choices=("critical", "error", "warning", "info", "debug", "trace"),
    )
    disable_uvicorn_access_log: bool = setting(False, "no line per request")
    disable_access_log_for_endpoints: list[str] = setting([], "paths without a line per request")
    enable_ssl_refresh: bool = setting(
        False, "read the key and the certificate again when their files change"
    )
    middleware: list[str] = setting(
        [], "ASGI middleware to put around the server, as package.module.Name of importable code"
    )
    disable_fastapi_docs: bool = setting(False, "no /openapi.json, /docs and /redoc")
    enable_offline_docs: bool = setting(False, "a /docs page that loads nothing from elsewhere")
    ui: bool = setting(True, "the page at / with a chat and a live view of the engine")
    default_chat_template_kwargs: dict[str, Any] = setting(
        {}, "JSON object of template variables; a request's own go over them"
    )
    trust_request_chat_template: bool = setting(
        False, "let a request bring its own chat template; it runs in a sandbox"
    )
    response_role: str = setting("assistant", "role of the answers to chats")
    exclude_tools_when_tool_choice_none: bool = setting(
        False, "show no tools to the model where a request says tool_choice none"
    )
    enable_request_id_headers: bool = setting(False, "X-Request-Id in every response")
    enable_prompt_tokens_details: bool = setting(False, "report cached tokens in usage")
    enable_force_include_usage: bool = setting(False, "usage in every stream")
    enable_server_load_tracking: bool = setting(False, "count requests in flight for /load")
    return_tokens_as_token_ids: bool = setting(False, "tokens of logprobs as token_id:N")
    fingerprint_mode: Literal["full", "hash", "custom", "none"] = setting(
        "full", "what system_fingerprint holds"
    )
    fingerprint_value: str | None = setting(None, "system_fingerprint in custom mode")
    strict: bool = setting(
        False, "refuse unknown request fields instead of naming them in a header"
    )
    tokens_only: bool = setting(
        False, "serve token ids in and out only: /inference/v1/generate and /abort_requests"
    )
    render_only: bool = setting(
        False, "serve the render and tokenize routes only: no engine, and no weights are read"
    )
    enable_tokenizer_info_endpoint: bool = setting(
        False, "serve /tokenizer_info, the tokenizer's settings with the chat template"
    )
    enable_per_request_metrics: bool = setting(
        False, "times of a request in its answer, as metrics: first token, queue, tokens per second"
    )
    batch_dir: str | None = setting(
        None, "folder of /v1/files and /v1/batches; default: batches in the cache folder"
    )
    batch_concurrency: int | None = setting(
        None, "lines of batches that run at once; default: as many as the engine has places"
    )
    max_file_bytes: int = setting(512 << 20, "largest file that may be uploaded, in bytes")
    max_stored_bytes: int = setting(8 << 30, "most bytes of all stored files together")
    tool_server: list[str] = setting(
        [],
        "MCP servers that /v1/responses may call, each [LABEL=]HOST:PORT or a URL; needs quire[mcp]",
    )
    responses_store: str | None = setting(
        None,
        "where /v1/responses are kept: a SQLite file, memory, or none; default: a file in the cache folder",
    )
    responses_max_count: int = setting(10_000, "most responses that are kept")
    responses_max_bytes: int = setting(256 << 20, "most bytes of kept responses together")
    responses_ttl: float = setting(
        30 * 86400.0, "seconds after its last use for which a response is kept"
    )
    max_body_bytes: int = setting(32 << 20, "largest request body, in bytes")
    max_header_bytes: int = setting(64 << 10, "largest request head, in bytes")
    header_timeout: float = setting(10.0, "seconds a client gets to send a request head")
    body_timeout: float = setting(30.0, "seconds of silence inside a request body before 408")
    keep_alive_timeout: float = setting(
        5.0, "seconds an idle connection is kept", env="VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
    )
    max_num_choices: int = setting(
        128, "largest n and best_of of a request", env="VLLM_MAX_N_SEQUENCES"
    )
    max_num_prompts: int = setting(
        1024,
        "most prompts in one completions request, times the choices for each",
        env="VLLM_MAX_COMPLETION_PROMPTS",
    )
    max_queue_wait: float = setting(
        10.0, "seconds within which a first token is promised, else 429; 0 admits everything"
    )
    server_dev_mode: bool = setting(
        False,
        "routes that steer the engine: /server_info, /pause, /reset_prefix_cache and others",
        env="VLLM_SERVER_DEV_MODE",
    )
    shutdown_timeout: float = setting(
        30.0, "seconds that running requests get to finish after SIGTERM"
    )
    keep_alive_on_engine_death: bool = setting(
        False,
        "go on answering with errors when the engine is dead",
        env="VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
    )
