"""openline-demo: opens the box, says what to try, and closes it on Ctrl-C."""

import asyncio
import signal
import tempfile
from pathlib import Path

from demo.box import Box, open_box
from demo.kubectl import KubectlMissing
from demo.programs import Program, StartFailed
from demo.settings import DemoSettings
from openline.logs import set_up_logs
from openline.process import forbid_core_dumps
from openline.settings import fail, load

PROGRAM = "openline-demo"


def main() -> None:
    forbid_core_dumps()
    settings = load(DemoSettings, program=PROGRAM)
    set_up_logs("warning", settings.log_format)
    try:
        asyncio.run(_run(settings))
    except (StartFailed, KubectlMissing, OSError) as failure:
        fail(PROGRAM, str(failure), code=1)


async def _run(settings: DemoSettings) -> None:
    with tempfile.TemporaryDirectory(prefix="openline-demo-", ignore_cleanup_errors=True) as directory:
        running = asyncio.create_task(_keep_open(settings, Path(directory)))
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Once: a second Ctrl-C must not interrupt the closing, which takes a bounded time.
            loop.add_signal_handler(signum, lambda: running.cancelling() or running.cancel())
        try:
            await running
        except asyncio.CancelledError:
            print("stopped", flush=True)


async def _keep_open(settings: DemoSettings, directory: Path) -> None:
    async with open_box(settings, directory) as box:
        print(_banner(box, settings, directory), flush=True)
        async with asyncio.TaskGroup() as watches:
            for program in box.programs:
                watches.create_task(_report_end(program))


async def _report_end(program: Program) -> None:
    """Says when a program ends by itself, or of somebody's hand; the others go on, as they would in a cluster."""
    code = await program.process.wait()
    print(f"{program.name} (pid {program.process.pid}) ended with code {code}", flush=True)


def _banner(box: Box, settings: DemoSettings, directory: Path) -> str:
    body = f'{{"cluster_id": "{box.clusters[0]}", "command_type": "get", "args": ["pods"], "namespace": "default"}}'
    rows = [
        ("gateway", box.gateway_url),
        ("page", f"{box.gateway_url}/ui"),
        ("brokers", ", ".join(box.brokers)),
        ("redis", box.redis_url),
        ("metrics", ", ".join(box.metrics)),
        ("clusters", ", ".join(box.clusters)),
        ("kubeconfig", str(box.kubeconfigs[0])),
        ("logs", str(directory / "*.log")),
        ("processes", ", ".join(f"{each.name} {each.process.pid}" for each in box.programs)),
    ]
    listing = "\n".join(f"  {name:<11}{value}" for name, value in rows)
    return f"""openline is running. Ctrl-C stops it.

{listing}

Try it:

  curl -X POST {box.gateway_url}/debug/execute -H "X-API-Key: {settings.api_key}" \\
    -d '{body}'
"""


if __name__ == "__main__":
    main()
