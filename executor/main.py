"""The program: reads the settings, starts the executor in stages, stops it in the reverse order."""

import asyncio
import json
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog
import uvloop

from executor.actions import Ended, NotStarted
from executor.commands import Commands
from executor.core import Core
from executor.kubectl import Kubectl
from executor.link import Link
from executor.orphans import Orphans
from executor.pace import Pace
from executor.policy import PolicyInForce
from executor.policy_file import PolicyUnusable
from executor.runner import Run
from executor.settings import PROGRAM, ExecutorSettings, load_settings, misused
from executor.spool import Spool
from executor.token_file import watch_token
from executor.warmup import Warmup
from openline import __version__, ids
from openline.health import serve_health
from openline.logs import set_up_logs
from openline.loudness import LOUDNESS
from openline.policy import Policy
from openline.policy.wire import capabilities_of
from openline.process import forbid_core_dumps
from openline.settings import fail, fail_to_listen
from openline.tracing.exporting import traced
from openline.v1 import executor_service_pb2 as wire

# kubectl answers with its own version in a tenth of a second, also on a machine that is busy.
VERSION_TIMEOUT_S = 10.0
# An API that does not answer must not keep its cluster from being reached.
SERVER_VERSION_S = 2.0
MAX_VERSION_BYTES = 64 << 10
MAX_VERSION_CHARACTERS = 100
# What runs may finish when this process is asked to stop: by TERM, to which an orchestrator gives 30 s in all, or by
# Ctrl-C, of a person who waits.
DRAIN_S = {signal.SIGTERM: 20.0, signal.SIGINT: 5.0}
# After that: until the killed commands are reaped, and until the broker has acknowledged the results.
KILLED_S = 3.0
ACKED_S = 1.0

log = structlog.get_logger()


def main() -> None:
    forbid_core_dumps()
    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    about = {"service.instance.id": settings.executor_id, "openline.cluster_id": settings.cluster_id}
    with traced(PROGRAM, about=about), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: ExecutorSettings) -> None:
    """Runs the executor until SIGTERM or SIGINT. Afterwards no process of it is left."""
    stop = asyncio.Event()
    drain_s = 0.0

    def stop_by(number: signal.Signals) -> None:
        nonlocal drain_s
        drain_s = DRAIN_S[number]
        stop.set()

    _on_signal(stop_by)
    LOUDNESS.toggle_on_signal()
    async with AsyncExitStack() as stages:
        try:
            home = stages.enter_context(
                tempfile.TemporaryDirectory(prefix="openline-executor-", ignore_cleanup_errors=True)
            )
        except OSError as problem:
            fail(PROGRAM, f"kubectl needs a directory that can be written to, see TMPDIR: {problem.strerror}", code=1)
        orphans = await stages.enter_async_context(Orphans())
        kubectl = Kubectl(
            path=settings.kubectl,
            home=Path(home),
            kubeconfig=settings.kubeconfig,
            plugin_path=settings.plugin_path,
            orphans=orphans,
        )
        in_force = _policy(settings)
        who = _introduce(settings, in_force.policy, kubectl_version=await _client_version(kubectl))
        core = Core(max_concurrency=settings.max_concurrency, judge=in_force.judge)
        spool = await _open_spool(stages, settings.spool_dir)
        commands = await stages.enter_async_context(Commands(core, kubectl, spool=spool))
        for result in spool.read() if spool else ():
            commands.restore(result)
        warmup = Warmup(kubectl)
        link = Link(settings, who, commands, pace=Pace(), active=warmup.want)
        if settings.health_listen is not None:
            health = serve_health(settings.health_listen, healthy=lambda: link.connected, otherwise="not connected")
            try:
                await stages.enter_async_context(health)
            except OSError as problem:
                fail_to_listen(PROGRAM, settings.health_listen, problem, flag="--health-listen")
        settings.warn_of_plaintext()
        log.info(
            "executor.started",
            cluster_id=who.cluster_id,
            executor_id=who.executor_id,
            instance_id=who.instance_id,
            policy=in_force.policy.digest,
        )
        async with asyncio.TaskGroup() as tasks:
            server_version = tasks.create_task(_learn_server_version(kubectl, who), name="server-version")
            tasks.create_task(_connect(link, server_version), name="link")
            asides = [
                server_version,
                tasks.create_task(warmup.run(), name="warmup"),
                tasks.create_task(link.watch_certificates(), name="certificates"),
                tasks.create_task(watch_token(settings, link.show_token), name="token"),
                tasks.create_task(in_force.watch(lambda policy: _tell(policy, who, link)), name="policy"),
            ]
            await stop.wait()
            for aside in asides:
                aside.cancel()
            await _drain(commands, drain_s)
            link.close()
    log.info("executor.stopped")


async def _open_spool(stages: AsyncExitStack, directory: Path | None) -> Spool | None:
    """The spool that was asked for; ends the program when it cannot be had."""
    if directory is None:
        return None
    try:
        return await stages.enter_async_context(Spool(directory))
    except OSError as problem:
        fail(PROGRAM, f"--spool-dir: {problem.strerror}", code=1)


async def _drain(commands: Commands, drain_s: float) -> None:
    """Lets what runs finish for a while, kills the rest, lets the broker acknowledge; a second signal kills at once."""
    log.info("executor.draining", running=commands.load[0], queued=commands.load[1])
    _on_signal(lambda _number: commands.stop_all("the executor was told to stop at once"))
    commands.drain("the executor is stopping")
    await _within(drain_s, commands.until(lambda: commands.load == (0, 0)))
    commands.stop_all("the executor is stopping")
    await _within(KILLED_S, commands.until(lambda: commands.load == (0, 0)))
    await _within(ACKED_S, commands.until(lambda: commands.idle))


async def _within(timeout_s: float, wait: Coroutine[None, None, None]) -> None:
    """Waits, but not longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await wait


def _on_signal(act: Callable[[signal.Signals], None]) -> None:
    """Has SIGTERM and SIGINT call `act` and nothing else."""
    for number in DRAIN_S:
        asyncio.get_running_loop().add_signal_handler(number, act, number)


def _policy(settings: ExecutorSettings) -> PolicyInForce:
    """The policy at the start; ends the program when its file cannot be used."""
    try:
        return PolicyInForce(settings.policy)
    except PolicyUnusable as problem:
        misused(f"--policy: {problem}")


def _introduce(settings: ExecutorSettings, policy: Policy, *, kubectl_version: str) -> wire.Hello:
    """What Hello says of this process, whatever commands it has."""
    labels = {key: value for key, _, value in (label.partition("=") for label in settings.labels)}
    return wire.Hello(
        cluster_id=settings.cluster_id,
        executor_id=settings.executor_id,
        instance_id=ids.new_id(),
        capabilities=_capabilities(policy, labels),
        max_concurrency=settings.max_concurrency,
        versions=wire.Versions(executor=__version__, kubectl=kubectl_version),
    )


def _capabilities(policy: Policy, labels: Mapping[str, str]) -> wire.Capabilities:
    capabilities = capabilities_of(policy)
    capabilities.labels.update(labels)
    return capabilities


def _tell(policy: Policy, who: wire.Hello, link: Link) -> None:
    """The policy has changed: the broker hears it now, and from every Hello."""
    who.capabilities.CopyFrom(_capabilities(policy, who.capabilities.labels))
    link.tell(wire.ExecutorFrame(capabilities=who.capabilities))


async def _client_version(kubectl: Kubectl) -> str:
    """kubectl's own version; ends the program when this kubectl does not run at all."""
    end = await _ask_version(kubectl, "--client")
    if isinstance(end, NotStarted):
        misused(f"--kubectl: {kubectl.path} could not be started: {end.why}")
    if end.exit_code != 0:
        misused(f"--kubectl: `{kubectl.path} version --client` ended with exit code {end.exit_code}")
    return _version_in(end, "clientVersion")


async def _connect(link: Link, server_version: asyncio.Task[None]) -> None:
    """Holds the line, from when Hello can tell the cluster's version, or after a moment without it."""
    await asyncio.wait({server_version}, timeout=SERVER_VERSION_S)
    await link.run()


async def _learn_server_version(kubectl: Kubectl, who: wire.Hello) -> None:
    """Completes `who` when the cluster's API answers: for every connection from then on."""
    end = await _ask_version(kubectl)
    if isinstance(end, Ended):
        who.versions.kubernetes = _version_in(end, "serverVersion")


async def _ask_version(kubectl: Kubectl, *flags: str) -> Ended | NotStarted:
    run = Run(kubectl, ["version", *flags, "-o", "json"], max_bytes=MAX_VERSION_BYTES)
    timer = asyncio.get_running_loop().call_later(VERSION_TIMEOUT_S, run.kill)
    try:
        return await run.run()
    finally:
        timer.cancel()


def _version_in(end: Ended, side: str) -> str:
    """`v1.36.0`, or nothing when the answer says none."""
    try:
        return str(json.loads(end.stdout.data)[side]["gitVersion"])[:MAX_VERSION_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        return ""
