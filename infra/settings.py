"""What the environment says becomes one frozen `Settings`, read once by the composition root and passed in.

`DATABASE_URL`, `REDIS_URL`, `OPENAI_API_KEY` and `OPENAI_BASE_URL` keep their usual names; everything else begins with
`PENSTOCK_`. Every secret may also be given as the path of a file, by the same name with `_FILE` appended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from infra.concurrency import parse_limits
from schemas.errors import Misconfigured

SECRETS = (
    "DATABASE_URL",
    "REDIS_URL",
    "OPENAI_API_KEY",
    "PENSTOCK_DATABASE_OWNER_URL",
    "PENSTOCK_TRAINER_API_KEY",
    "PENSTOCK_TRAINER_WEBHOOK_SECRET",
    "PENSTOCK_SECRET_KEYS",
    "PENSTOCK_EGRESS_PROXY",
    "PENSTOCK_API_KEY",
    "PENSTOCK_ADMIN_KEY",
)


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `NAME_FILE` for every secret NAME that is not set itself."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused: all fields are read together."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Field name → the file's content, without the newline at its end."""
        environ = self.current_state_environ()
        found: dict[str, Any] = {}
        for name in SECRETS:
            path = environ.get(f"{name}_FILE")
            if path and name not in environ:
                try:
                    found[_field(name)] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
                except OSError as error:
                    raise Misconfigured(
                        f"{name}_FILE cannot be read: {error.strerror}",
                        field=f"{name}_FILE",
                        fix="check path and rights",
                    ) from None
        return found

    @staticmethod
    def current_state_environ() -> Mapping[str, str]:
        """The process's environment."""
        import os  # noqa: PLC0415 - the only place that reads it besides pydantic-settings

        return os.environ


def _field(name: str) -> str:
    return name.removeprefix("PENSTOCK_").lower()


def _plain(name: str) -> Any:
    """A setting that keeps its usual name."""
    return AliasChoices(name, _field(name))


class Settings(BaseSettings):
    """Everything that can be set, with its default. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="PENSTOCK_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(
        None,
        validation_alias=_plain("DATABASE_URL"),
        description="Login that may act as the three serving roles.",
    )
    redis_url: SecretStr | None = Field(
        None, validation_alias=_plain("REDIS_URL"), description="Redis or Valkey, one primary, noeviction."
    )
    openai_api_key: SecretStr | None = Field(
        None, validation_alias=_plain("OPENAI_API_KEY"), description="Key of the model API."
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias=_plain("OPENAI_BASE_URL"),
        description="Any OpenAI-compatible server; OpenAI's own unless set.",
    )

    home: Path = Field(Path(".penstock"), description="Where the embedded stack of `up` and `demo` lives.")
    database_owner_url: SecretStr | None = Field(
        None, description="The owner's login; used by migrate and maintain only."
    )
    database_pool: int = Field(8, ge=1, le=100, description="Connections per process and role.")

    embed_model: str = Field("text-embedding-3-small", description="Embedding model of new collections.")
    embed_dimensions: int = Field(1536, ge=1, le=4000, description="Dimensions of new collections.")
    chat_model: str = Field("gpt-6-luna", description="What the alias `chat` means until somebody sets it.")
    judge_model: str | None = Field(
        None, description="Model that judges in evaluations; no judge unless set."
    )
    model_timeout: float = Field(60.0, gt=0, description="Longest wait for one model call.")
    model_requests_per_minute: int = Field(
        0, ge=0, description="Model calls per minute of all processes; 0 believes the provider's headers."
    )
    model_tokens_per_minute: int = Field(
        0, ge=0, description="Tokens per minute of all processes; 0 believes the provider's headers."
    )

    trainer_base_url: str | None = Field(
        None, description="Server of files and fine_tuning.jobs; the model API's unless set."
    )
    trainer_api_key: SecretStr | None = Field(
        None, description="Key of the trainer; the model API's unless set."
    )
    trainer_webhook_secret: SecretStr | None = Field(
        None, description="Secret of the provider's webhooks to /v1/hooks/openai."
    )
    train_base_model: str = Field("gpt-4.1-mini-2025-04-14", description="Base model of new datasets.")
    train_poll: float = Field(30.0, gt=0, description="Longest time between two looks at a training job.")
    train_stall: float = Field(
        6 * 3600.0, gt=0, description="A job that reports nothing for so long has stalled."
    )
    train_seed: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Seed sent with every training job: the same examples then give the same model, where the trainer"
        " honours it. Not every trainer takes one.",
    )

    prices: Path | None = Field(None, description="Dated price file (JSON); the built-in one unless set.")
    budget_day: float | None = Field(
        None, ge=0, description="US dollars a tenant may spend per day, unless its limits say otherwise."
    )
    budget_month: float | None = Field(
        None, ge=0, description="US dollars a tenant may spend per month, unless its limits say otherwise."
    )

    secret_keys: SecretStr | None = Field(
        None, description="Comma-separated base64 keys of 32 bytes; the first encrypts, all decrypt."
    )
    egress_allow: str = Field(
        "", description="CIDR[:port|:*], comma-separated, that tenants' URLs may reach although private."
    )
    egress_https_only: bool = Field(default=False, description="Refuse tenants' http URLs.")
    egress_proxy: SecretStr | None = Field(None, description="Proxy for tenants' URLs; may hold a password.")

    gateway_host: str = Field("127.0.0.1", description="Address of the HTTP API.")
    gateway_port: int = Field(8420, ge=0, le=65535, description="Port of the HTTP API.")
    rate_limit: int = Field(
        120_000,
        ge=1,
        description="Requests a minute that each key may send to one gateway process, unless the key or its tenant has a rate.",
    )
    max_waiting: int = Field(
        2_000_000, ge=1, description="Unfinished events in the ledger at which the gateway says 503."
    )
    max_queued: int = Field(
        1_000_000, ge=1, description="Jobs on one queue at which the gateway says 503 to events for it."
    )
    ops_host: str = Field("127.0.0.1", description="Address of health, metrics and scaling.")
    ops_port: int = Field(
        8421, ge=0, le=65535, description="Port of health, metrics and scaling; 0 picks a free one."
    )

    concurrency: int = Field(64, ge=1, le=10_000, description="Jobs that a worker process holds at once.")
    limits: str = Field(
        "",
        description="Jobs that the whole fleet runs at once: `type T=N`, `tenant T=N` or `tenant *=N`, comma-separated.",
    )
    webhook_delays: str = Field(
        "5,300,1800,7200,18000,36000,50400,72000,86400",
        description="Seconds after each failed attempt at a webhook; after the last one it is given up.",
    )
    lease: float = Field(30.0, ge=1, description="A worker that is silent for so long loses its jobs.")
    grace: float = Field(20.0, ge=0, description="How long running jobs may finish after SIGTERM.")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe log line shown."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json for machines, console for people."
    )

    url: str = Field("http://127.0.0.1:8420", description="Client commands: where the gateway is.")
    api_key: SecretStr | None = Field(None, description="Client commands: the key they send.")
    admin_key: SecretStr | None = Field(None, description="Client commands: the key for administration.")

    @field_validator("limits")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_limits(text)
        return text

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, secret files, then `.env`."""
        del file_secret_settings
        return init_settings, env_settings, _SecretFiles(settings_cls), dotenv_settings

    @property
    def proxy_url(self) -> str | None:
        """The proxy for tenants' URLs."""
        return None if self.egress_proxy is None else self.egress_proxy.get_secret_value()

    def need(self, name: str) -> str:
        """The value of a setting without which the process cannot run.

        Args:
            name: the environment variable, such as ``DATABASE_URL``.

        Raises:
            Misconfigured: it is not set; names it.
        """
        value = getattr(self, _field(name))
        if value is None:
            raise Misconfigured(
                f"{name} is not set", field=name, fix=f"set {name}, or start a local stack with `penstock up`"
            )
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, `.env` and secret files; overrides win.

    Raises:
        Misconfigured: a value is not allowed; names the variable, never shows the value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        name = field if field.isupper() else f"PENSTOCK_{field.upper()}"
        raise Misconfigured(f"{name}: {first['msg']}", field=name, fix="see docs/settings.md") from None
