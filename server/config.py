"""Every setting of the service, and the only place that reads the environment.

A setting ``data_dir`` is the variable ``SHOAL_DATA_DIR``. Flags of `shoal serve` win over
variables. Bad values end the process with every fault listed.
"""

from __future__ import annotations

import os
import socket
import string
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.errors import InvalidRequestError, Violation
from server.labeling.settings import (
    DEFAULT_PRICES,
    LabelingSettings,
    Price,
    configured_providers,
)
from server.logs import LogFormat, LogSettings
from server.qdrant.names import SEPARATOR

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


class Settings(BaseSettings):
    """The service's settings, each with its unit and its default."""

    model_config = SettingsConfigDict(env_prefix="SHOAL_", extra="ignore", frozen=True)

    listen: str = Field(
        "127.0.0.1:50051",
        description="host:port the gRPC server binds; port 0 takes a free one",
    )
    dev: bool = Field(
        False,
        description="take any or no key; namespace `default`; binds loopback only",
    )
    data_dir: Path = Field(
        Path.home() / ".local" / "share" / "shoal",
        description="folder of the embedded stores and the artifacts",
    )
    mongodb_uri: SecretStr | None = Field(
        None, description="job metadata in this MongoDB; unset: SQLite in `SHOAL_DATA_DIR`"
    )
    mongodb_database: str = Field("shoal", description="database name in MongoDB")
    qdrant_url: str | None = Field(
        None,
        description="a Qdrant server's gRPC address; unset: the embedded one in `SHOAL_DATA_DIR`",
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Qdrant's API key")
    collection_template: str | None = Field(
        None,
        description="Qdrant name of a collection, from `{namespace_id}` and `{collection_id}`; "
        "unset: `{collection_id}` for the first namespace, `{namespace_id}__{collection_id}` for "
        "later ones, fixed when a namespace is made; `{namespace_id}/{collection_id}`: one Qdrant "
        "collection for each namespace, whose documents name their collection in the payload "
        "field `collection_id`",
    )
    artifacts_url: str | None = Field(
        None,
        description="fsspec URL or folder of the artifacts; unset: `artifacts` in the data folder",
    )
    keep_runs: int = Field(
        3,
        ge=1,
        le=50,
        description="runs of a cluster whose artifacts stay; exports of the newest only",
    )
    device: Literal["auto", "gpu", "cpu"] = Field("auto", description="where runs compute")
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="worker processes, and so runs at once; unset: one, or with dask_address as "
        "many runs as that cluster has workers",
    )
    threads: int = Field(
        os.cpu_count() or 1,
        ge=1,
        description="threads of numeric libraries in each worker",
        json_schema_extra={"default": "all cores"},
    )
    dask_address: str | None = Field(
        None, description="scheduler of a Dask cluster to use; unset: workers of its own"
    )
    spread_mib: float = Field(
        1024.0,
        ge=0,
        description="with dask_address: k-means on vectors of more MiB than this takes all workers "
        "that are free",
    )
    lease_s: float = Field(
        30.0, gt=0, description="seconds until a silent server's run is taken over"
    )
    max_active_runs: int = Field(
        100, ge=1, description="runs a namespace may have pending or processing at once"
    )
    openai_api_key: SecretStr | None = Field(None, description="key for labels by OpenAI")
    google_api_key: SecretStr | None = Field(None, description="key for labels by Google")
    anthropic_api_key: SecretStr | None = Field(None, description="key for labels by Anthropic")
    llm_api_key: SecretStr | None = Field(None, description="key for `SHOAL_LLM_BASE_URL`, if any")
    openai_base_url: str | None = Field(None, description="another address for OpenAI")
    google_base_url: str | None = Field(None, description="another address for Google")
    anthropic_base_url: str | None = Field(None, description="another address for Anthropic")
    llm_base_url: str | None = Field(
        None, description="address of an OpenAI-compatible server: vLLM, Ollama and others"
    )
    llm_concurrency: int = Field(4, ge=1, le=64, description="label requests of a run at once")
    llm_timeout_s: float = Field(30.0, gt=0, description="seconds that one label request may take")
    llm_max_attempts: int = Field(4, ge=1, description="tries for one label while faults may pass")
    llm_max_groups: int = Field(5_000, ge=1, description="groups of a run that a model may name")
    llm_prices: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="model to US dollars per million prompt and completion tokens",
    )
    shutdown_grace_s: float = Field(
        10.0, ge=0, description="seconds that runs and calls get to end on SIGTERM"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severity that is logged"
    )
    log_format: LogFormat = Field("text", description="text for people, or json: one a line")
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the server's certificate with its chain; unset: no TLS; a "
        "replaced file counts from the next connection",
    )
    tls_key: Path | None = Field(None, description="PEM file of its key, without a password")
    tls_client_ca: Path | None = Field(
        None, description="PEM file; only clients whose certificate it signed may connect"
    )
    failed_logins_per_minute: int = Field(
        30, ge=1, description="calls with a wrong key that one address may make in a minute"
    )
    metrics_listen: str | None = Field(
        None,
        description="host:port where Prometheus may ask by HTTP, without a key; unset: nowhere",
    )
    otel_endpoint: str | None = Field(
        None,
        description="OTLP collector (gRPC) that spans are sent to; unset: no traces; needs "
        "`pip install 'shoal[otel]'`",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        host = _host_of("listen", self.listen)
        if self.metrics_listen is not None:
            _host_of("metrics_listen", self.metrics_listen)
        if self.dask_address is not None:
            _check_dask_address(self.dask_address)
        if self.dev and host not in LOOPBACK_HOSTS:
            raise ValueError(
                f"listen: dev takes any key, so it binds loopback only, not {host!r}; "
                "use 127.0.0.1, or serve without --dev and make keys"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise ValueError(f"{missing}: is not set; a certificate and its key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: needs tls_cert and tls_key; clients are asked by TLS")
        if self.collection_template is not None:
            _check_template(self.collection_template)
        return self

    @property
    def database_path(self) -> Path:
        """The embedded job store's file."""
        return self.data_dir / "jobs.sqlite"

    @property
    def artifacts(self) -> str:
        """Where artifacts go, as an fsspec URL or an absolute path."""
        return self.artifacts_url or str((self.data_dir / "artifacts").absolute())

    @property
    def labeling(self) -> LabelingSettings:
        """How language models are asked for labels."""

        def shown(secret: SecretStr | None) -> str | None:
            return None if secret is None else secret.get_secret_value()

        prices = {name: Price(*price) for name, price in self.llm_prices.items()}
        return LabelingSettings(
            providers=configured_providers(
                {
                    "openai": shown(self.openai_api_key),
                    "google": shown(self.google_api_key),
                    "anthropic": shown(self.anthropic_api_key),
                    "openai_compatible": shown(self.llm_api_key),
                },
                {
                    "openai": self.openai_base_url,
                    "google": self.google_base_url,
                    "anthropic": self.anthropic_base_url,
                    "openai_compatible": self.llm_base_url,
                },
            ),
            concurrency=self.llm_concurrency,
            timeout_s=self.llm_timeout_s,
            max_attempts=self.llm_max_attempts,
            max_groups=self.llm_max_groups,
            prices={**DEFAULT_PRICES, **prices},
        )

    @property
    def logs(self) -> LogSettings:
        """How this process and its workers log, and what never stands in a line."""
        values = [getattr(self, name) for name in type(self).model_fields]
        secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        if self.mongodb_uri is not None:
            secrets += _passwords(self.mongodb_uri.get_secret_value())
        for url in (self.qdrant_url, self.artifacts_url):
            secrets += _passwords(url or "")
        return LogSettings(self.log_level, self.log_format, tuple(secrets))

    @property
    def owner(self) -> str:
        """This process's name in leases."""
        return f"{socket.gethostname()}:{os.getpid()}"


def _host_of(name: str, address: str) -> str:
    """Give the host of ``host:port``, or raise ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{name}: {address!r} is not host:port with a port up to 65535")
    return host


def _check_dask_address(address: str) -> None:
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("tcp", "tls"):
        raise ValueError(
            f"dask_address: {address!r} is not a scheduler's tcp://host:port or tls://host:port"
        )
    _host_of("dask_address", rest)


def _passwords(url: str) -> list[str]:
    """Give a URL's password as it is written there and as it is sent, if it has one."""
    credentials = url.partition("://")[2].rpartition("@")[0]
    password = credentials.partition(":")[2]
    return [password, unquote(password)] if password else []


def _check_template(template: str) -> None:
    """Refuse a template under which names cannot be made, or tenants could meet in one."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"collection_template: {template!r} cannot be read: {error}") from error
    fields = [name for _, name, _, _ in parts if name is not None]
    is_plain = not any(form or conversion for _, _, form, conversion in parts)
    if not is_plain or not set(fields) <= {"collection_id", "namespace_id"}:
        raise ValueError(
            f"collection_template: {template!r} may have {{namespace_id}} and {{collection_id}}, "
            "plain, and no other fields"
        )
    if fields.count("collection_id") != 1:
        raise ValueError(f"collection_template: {template!r} lacks one {{collection_id}}")
    literal = "\0".join(text for text, _, _, _ in parts)
    before, slash, behind = template.partition(SEPARATOR)
    if slash and not (before and behind == "{collection_id}"):
        raise ValueError(
            f"collection_template: {template!r} shares a Qdrant collection, and so ends in "
            "'/{collection_id}', as in {namespace_id}/{collection_id}"
        )
    if "namespace_id" in fields and "__" not in literal and not slash:
        # Collection ids have no "__", so none can spell a name of another namespace.
        raise ValueError(
            f"collection_template: {template!r} has {{namespace_id}} and so needs '__', as in "
            "{namespace_id}__{collection_id}"
        )


def load_settings(**flags: object) -> Settings:
    """Read the settings; `flags` that are not None win over the environment.

    Raises
    ------
    InvalidRequestError
        With one violation for each bad value.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them.
    except ValidationError as error:
        raise InvalidRequestError(
            [
                Violation(
                    "SHOAL_" + str(fault["loc"][0]).upper() if fault["loc"] else "settings",
                    str(fault["msg"]).removeprefix("Value error, "),
                )
                for fault in error.errors(include_url=False)
            ]
        ) from error


class ClientSettings(BaseSettings):
    """What the command line's client commands need; their flags win over these."""

    model_config = SettingsConfigDict(env_prefix="SHOAL_", extra="ignore", frozen=True)

    server: str = Field(
        "127.0.0.1:50051",
        description="host:port of the server to call; `https://host:port` for TLS",
    )
    key: SecretStr | None = Field(None, description="API key, sk_…; not needed with --dev")
    namespace: str | None = Field(None, description="namespace name or id")
    tls_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the server; asks for TLS"
    )
    client_cert: Path | None = Field(None, description="PEM file of the own certificate")
    client_key: Path | None = Field(None, description="PEM file of its key")


def environment_without_settings() -> dict[str, str]:
    """Give this process's environment less the settings, for a child with settings of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
