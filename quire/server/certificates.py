"""Key and certificate: checked before the start, and followed, so that new ones act without a restart.

Speaking TLS is uvicorn's; the flags are `config.server`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


def check_tls(config: ServerConfig) -> None:
    """Raises SettingsError for files and settings of TLS that no server can be made of."""
    if config.ssl_certfile is None:
        if config.ssl_ca_certs is not None or config.ssl_cert_reqs:
            raise SettingsError(
                "--ssl-ca-certs and --ssl-cert-reqs need --ssl-keyfile and --ssl-certfile"
            )
        if config.enable_ssl_refresh:
            raise SettingsError("--enable-ssl-refresh needs --ssl-keyfile and --ssl-certfile")
        return
    if config.ssl_cert_reqs not in (0, 1, 2):
        raise SettingsError(f"--ssl-cert-reqs is {config.ssl_cert_reqs}; it must be 0, 1 or 2")
    if config.ssl_cert_reqs and config.ssl_ca_certs is None:
        raise SettingsError("--ssl-cert-reqs needs --ssl-ca-certs, to know whom to trust")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # An empty password, so that an encrypted key is an error and no question in the terminal.
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password="")
        if config.ssl_ca_certs is not None:
            context.load_verify_locations(config.ssl_ca_certs)
        if config.ssl_ciphers is not None:
            context.set_ciphers(config.ssl_ciphers)
    except OSError as error:  # ssl.SSLError is one
        files = (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs)
        named = ", ".join(one for one in files if one is not None)
        raise SettingsError(f"TLS cannot be set up from {named}: {error}") from error


async def follow(config: ServerConfig, context: ssl.SSLContext) -> None:
    """Loads changed files into the context of the running server, until it is cancelled.

    Files that cannot be used are told in the log, and the connections go on with the old ones.
    """
    seen = _stamps(config)
    while True:
        await asyncio.sleep(_LOOK_S)
        found = _stamps(config)
        if found == seen:
            continue
        seen = found
        try:
            _load(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # tried before it is used
            _load(config, context)
            logger.info("key and certificate were read again")
        except OSError as error:  # ssl.SSLError is one
            logger.warning("changed key or certificate cannot be used: %s", error)


def _load(config: ServerConfig, context: ssl.SSLContext) -> None:
    context.load_cert_chain(config.ssl_certfile or "", config.ssl_keyfile, password="")
    if config.ssl_ca_certs is not None:
        context.load_verify_locations(config.ssl_ca_certs)


def _stamps(config: ServerConfig) -> list[tuple[int, int] | None]:
    """Size and time of change of each file; None while it is not there."""
    found: list[tuple[int, int] | None] = []
    for path in (config.ssl_keyfile, config.ssl_certfile, config.ssl_ca_certs):
        try:
            about = os.stat(path) if path else None
            found.append((about.st_mtime_ns, about.st_size) if about else None)
        except OSError:
            found.append(None)
    return found
