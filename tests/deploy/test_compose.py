import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if str(one["image"]).startswith("penstock:")}
WORKERS = {name: one for name, one in OURS.items() if one["command"][0] == "worker"}
OF_THE_IMAGES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
OF_OUR_SCRIPTS = {"PENSTOCK_OWNER_PASSWORD", "PENSTOCK_APP_PASSWORD", "VALKEY_PASSWORD"}


def variables_of_settings() -> set[str]:
    """Every environment variable that Penstock reads."""
    usual = {"DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
    return usual | {f"PENSTOCK_{name.upper()}" for name in Settings.model_fields if name.upper() not in usual}


def seconds(text: str) -> float:
    """A duration as Compose writes it."""
    match = re.fullmatch(r"([0-9]+)s", text)
    assert match is not None, text
    return float(match[1])


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name: str) -> None:
    """The service starts a command that the CLI has, with arguments that it takes."""
    command, *arguments = OURS[name]["command"]
    known = typer.main.get_group(app)
    found = known.get_command(None, command)  # type: ignore[arg-type]
    assert found is not None
    context = found.make_context(command, list(arguments), resilient_parsing=False)
    assert context.params.get("pool", "all") in {"ingest", "answer", "train", "deliver", "all"}


def test_each_pool_has_a_service() -> None:
    """All four, migration, maintenance and the gateway; no other service of ours."""
    assert {"ingest", "answer", "train", "deliver"} == {one["command"][1] for one in WORKERS.values()}
    assert {"migrate", "maintain", "gateway", *WORKERS} == set(OURS)


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting(name: str) -> None:
    """A typing error in a variable's name would silently leave a default in place."""
    given = set(SERVICES[name].get("environment", {}))
    known = variables_of_settings() if name in OURS else OF_THE_IMAGES | OF_OUR_SCRIPTS
    assert set() == given - known


@pytest.mark.parametrize("name", OURS)
def test_every_value_is_allowed(name: str) -> None:
    """What Compose sets passes the settings' own checks."""
    given = {
        key: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", re.sub(r"\$\{([A-Z_]+):\?[^}]*\}", "secret", value))
        for key, value in OURS[name]["environment"].items()
    }
    fields = {key.removeprefix("PENSTOCK_").lower(): value for key, value in given.items()}
    settings = Settings.model_validate(fields)
    assert "$" not in "".join(given.values())
    assert settings.need("DATABASE_URL").startswith("postgresql://penstock_app:")


def test_only_the_gateway_is_published_and_only_on_the_loopback_interface() -> None:
    """PostgreSQL, Valkey, workers and ops ports are reached by nobody outside."""
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert ["gateway"] == list(published)
    assert all(str(port).startswith("127.0.0.1:") for port in published["gateway"])
    port = OURS["gateway"]["environment"]["PENSTOCK_GATEWAY_PORT"]
    assert all(str(one).endswith(f":{port}") for one in published["gateway"])


@pytest.mark.parametrize("name", SERVICES)
def test_services_can_be_scaled(name: str) -> None:
    """No fixed container or host name and no port of a worker: `--scale worker-ingest=4` would clash on them."""
    assert set() == {"container_name", "hostname", "network_mode"} & set(SERVICES[name])


@pytest.mark.parametrize("name", [*WORKERS, "gateway"])
def test_health_checks_ask_paths_that_exist(name: str) -> None:
    """The path is served by the process, on the port that the service sets."""
    url = OURS[name]["healthcheck"]["test"][-1]
    environment = OURS[name]["environment"]
    port = environment["PENSTOCK_GATEWAY_PORT" if name == "gateway" else "PENSTOCK_OPS_PORT"]
    path = re.fullmatch(rf"http://127\.0\.0\.1:{port}(/[a-z]+)", url)
    assert path is not None, url
    assert path[1] in ({"/healthz"} if name == "gateway" else {"/livez", "/readyz"})
    assert ["CMD", "python", "-m", "infra.deploy.probe"] == OURS[name]["healthcheck"]["test"][:4]


def test_every_secret_is_demanded() -> None:
    """No password has a default, and none is written into the file."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    secret = {name for name in used if re.search(r"PASSWORD|KEY", name)}
    assert {"OPENAI_API_KEY", "PENSTOCK_SECRET_KEYS", "VALKEY_PASSWORD", "POSTGRES_PASSWORD"} <= secret
    for name in secret:
        assert re.findall(rf"\$\{{{name}[^?}}]*\}}", text) == [], name
        assert re.search(rf"\$\{{{name}:\?[^}}]+\}}", text), name


@pytest.mark.parametrize("name", OURS)
def test_compose_waits_longer_than_the_workers_grace(name: str) -> None:
    """SIGKILL comes after running jobs have had their time."""
    one = OURS[name]
    assert float(one["environment"]["PENSTOCK_GRACE"]) < seconds(one["stop_grace_period"])


@pytest.mark.parametrize("name", OURS)
def test_everybody_waits_for_the_migration(name: str) -> None:
    """Nothing serves before the schema is there; the migration itself waits for a healthy PostgreSQL."""
    waits = {other: how["condition"] for other, how in OURS[name]["depends_on"].items()}
    if name == "migrate":
        assert {"postgres": "service_healthy"} == waits
    else:
        assert "service_completed_successfully" == waits["migrate"]
    assert all("healthcheck" in SERVICES[other] for other, how in waits.items() if how == "service_healthy")


@pytest.mark.parametrize("name", OURS)
def test_the_owners_login_reaches_only_those_who_need_it(name: str) -> None:
    """A serving process cannot step around row-level security, even when it is taken over."""
    has = "PENSTOCK_DATABASE_OWNER_URL" in OURS[name]["environment"]
    assert (name in {"migrate", "maintain"}) == has


@pytest.mark.parametrize("name", OURS)
def test_containers_have_no_rights_to_lose(name: str) -> None:
    """Read-only, no capabilities, no new privileges."""
    one = OURS[name]
    assert (True, ["ALL"], ["no-new-privileges:true"]) == (
        one["read_only"],
        one["cap_drop"],
        one["security_opt"],
    )


def test_valkey_keeps_what_it_is_told() -> None:
    """The append-only file is on and nothing is evicted, which `penstock doctor` asks for."""
    command = " ".join(SERVICES["valkey"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert ["valkey:/data"] == SERVICES["valkey"]["volumes"]


def test_the_operations_page_names_what_compose_demands() -> None:
    """Whoever follows docs/operations.md is not stopped by a variable that it did not mention."""
    demanded = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set() == {name for name in demanded if f"`{name}`" not in page}
