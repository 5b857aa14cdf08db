"""The address of a server: its settings checked, its socket bound, before anything is imported that takes time.

What is served there is `server.launch`.
"""

from __future__ import annotations

import ipaddress
import logging
import socket

from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError

logger = logging.getLogger(__name__)


def check(config: ServerConfig) -> None:
    """Raises SettingsError for settings that cannot work; warns of an open server."""
    if not 0 <= config.port <= 65535:
        raise SettingsError(f"--port is {config.port}; it must be between 0 and 65535")
    if any(not key for key in config.api_key):
        raise SettingsError("--api-key is empty; give a key, or leave it out for an open server")
    if config.allow_credentials and "*" in config.allowed_origins:
        raise SettingsError("--allow-credentials needs --allowed-origins that are named, not *")
    if (config.ssl_keyfile is None) != (config.ssl_certfile is None):
        raise SettingsError("--ssl-keyfile and --ssl-certfile must be given together")
    if (
        config.ssl_certfile
        or config.ssl_ca_certs
        or config.ssl_cert_reqs
        or config.enable_ssl_refresh
    ):
        from quire.server.certificates import check_tls  # with asyncio, which takes its time

        check_tls(config)
    if config.max_queue_wait < 0:
        raise SettingsError(
            f"--max-queue-wait is {config.max_queue_wait:g}; give seconds, or 0 for no limit"
        )
    if config.batch_concurrency is not None and config.batch_concurrency < 1:
        raise SettingsError(
            f"--batch-concurrency is {config.batch_concurrency}; it must be at least 1"
        )
    if config.fingerprint_mode == "custom" and config.fingerprint_value is None:
        raise SettingsError("--fingerprint-mode custom needs --fingerprint-value")
    if not config.api_key and config.uds is None and not is_loopback(config.host):
        logger.warning(
            "anyone who reaches %s:%d can use this server: give --api-key", config.host, config.port
        )


def bind(config: ServerConfig) -> socket.socket:
    """The listening socket. Raises SettingsError."""
    if config.uds is not None:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address: str | tuple[str, int] = config.uds
        where = f"--uds {config.uds}"
    else:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = (config.host, config.port)
        where = f"--host {config.host} --port {config.port}"
    try:
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise SettingsError(f"cannot listen at {where}: {error.strerror or error}") from None
    bound.setblocking(False)
    return bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
