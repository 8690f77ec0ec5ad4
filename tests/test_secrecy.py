"""That the suite's look for secrets finds them: small suites of their own, which print theirs in every way."""

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py")
SECRET = "the-key-of-the-inner-suite"

# Each is the body of a test that a secret escapes from, but for the last ones.
LEAKS = {
    "print": "digest(SECRET); print(f'>{SECRET}<')",
    "print_before_the_end": "digest(SECRET); print(SECRET); assert True",
    "log": "digest(SECRET); structlog.get_logger().info('key.taken', key=SECRET)",
    "captured_log": """
    digest(SECRET)
    with structlog.testing.capture_logs():
        structlog.get_logger().info('key.taken', key=SECRET)
""",
    "standard_log": "digest(SECRET); logging.getLogger('x').warning(SECRET)",
    "error": "digest(SECRET); OpenlineError(errors.error(Reason.UNAUTHENTICATED, f'not {SECRET}'))",
    "metadata_of_an_error": (
        "digest(SECRET); OpenlineError(errors.error(Reason.UNAUTHENTICATED, 'no', metadata={'key': SECRET}))"
    ),
    "metrics": """
    digest(SECRET)
    metric = Metric('keys_total', 'counter', 'Keys.', ('key',))
    Exposition(lambda: [(metric, [((SECRET,), 1)])]).text()
""",
    "pipe": "subprocess.run([*PROGRAM, '--token', SECRET], stderr=subprocess.PIPE)",
    "pipes": "subprocess.run([*PROGRAM, '--token', SECRET], capture_output=True)",
    "pipe_by_lines": """
    with subprocess.Popen([*PROGRAM, '--token', SECRET], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            pass
""",
    "both_in_one_pipe": (
        "subprocess.run([*PROGRAM, '--token', SECRET], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)"
    ),
    "pipe_of_asyncio": """
    async def run():
        program = await asyncio.create_subprocess_exec(*PROGRAM, '--token', SECRET, stderr=subprocess.PIPE)
        await program.communicate()
    asyncio.run(run())
""",
    "log_file": """
    with (tmp_path / 'program.log').open('wb') as log:
        subprocess.run([*PROGRAM, '--token', SECRET], stderr=log)
""",
    "log_file_of_asyncio": """
    async def run():
        with (tmp_path / 'program.log').open('wb') as log:
            program = await asyncio.create_subprocess_exec(*PROGRAM, '--token', SECRET, stderr=log)
            await program.wait()
    asyncio.run(run())
""",
    "log_file_of_others": """
    digest(SECRET)
    (tmp_path / 'program.log').write_text(SECRET)
    overheard.follow(tmp_path)
""",
    "token_file": """
    (tmp_path / 'token').write_text(SECRET)
    subprocess.run([*PROGRAM, '--token-file', tmp_path / 'token', SECRET], capture_output=True)
""",
    "variable": """
    keys = {'OPENLINE_API_KEYS': f'a:{SECRET}:read@x,b:kkkkkkkk:read'}
    subprocess.run([*PROGRAM, SECRET], capture_output=True, env=keys)
""",
    "peer_secret": "subprocess.run([*PROGRAM, f'--peer-secret={SECRET}'], capture_output=True)",
    "executor_tokens": "subprocess.run([*PROGRAM, '--executor-tokens', f'a:aaaaaaaa,b:{SECRET}'], capture_output=True)",
}
HARMLESS = {
    "output_of_a_program": "subprocess.run([sys.executable, '-c', 'print(1)', '--token', SECRET], capture_output=True)",
    "its_standard_output": "subprocess.run([*LOUD, '--token', SECRET], stdout=subprocess.PIPE)",
    "nothing": "digest(SECRET); print('nothing')",
}
INNER = f"""
import asyncio, logging, subprocess, sys
import structlog
from broker.core.credentials import digest
from openline import errors
from openline.errors import OpenlineError
from openline.exposition import Exposition
from openline.metrics import Metric
from openline.reasons import Reason

SECRET = {SECRET!r}
PROGRAM = [sys.executable, "-c", "import sys; sys.stderr.write(str(sys.argv))"]
LOUD = [sys.executable, "-c", "import sys; print(sys.argv)"]
"""


def outcomes(directory: Path, tests: dict[str, str], *flags: str) -> tuple[dict[str, str], str]:
    """How the tests of a suite end, each in a file of its own; and what pytest says."""
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    for name, body in tests.items():
        test = f"{INNER}\n\ndef test_{name}(tmp_path, overheard):\n    {body.strip()}\n"
        (directory / f"test_{name}.py").write_text(test)
    options = ["-rA", "-p", "no:cacheprovider", f"--rootdir={directory}", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, directory],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=False,
        cwd=directory,
        env=environment,
    )
    ends = re.findall(r"^(PASSED|FAILED|ERROR) \S*::test_(\w+)", run.stdout, re.MULTILINE)
    return {name: end for end, name in ends}, run.stdout


def test_a_secret_that_is_printed_fails_its_test(tmp_path: Path) -> None:
    """In whatever way it is printed; and nothing else does."""
    ends, said = outcomes(tmp_path, LEAKS | HARMLESS)
    assert {name for name, end in ends.items() if end == "ERROR"} == LEAKS.keys(), said
    assert {name for name, end in ends.items() if end == "PASSED"} == HARMLESS.keys()
    assert said.count("is a secret, and was printed") >= len(LEAKS)


def test_also_where_tests_run_beside_each_other(tmp_path: Path) -> None:
    some = {name: LEAKS[name] for name in ("print", "pipe", "error")}
    ends, said = outcomes(tmp_path, some | HARMLESS, "-n", "2")
    assert {name for name, end in ends.items() if end == "ERROR"} == some.keys(), said


def test_a_secret_that_could_not_be_found_is_not_taken(tmp_path: Path) -> None:
    ends, said = outcomes(tmp_path, {"short": "subprocess.run([*PROGRAM, '--token', 'short'], capture_output=True)"})
    assert ends == {"short": "ERROR"}
    assert "'short', with which a program was started, is too short to be looked for" in said


def test_a_test_that_fails_still_says_why(tmp_path: Path) -> None:
    """The secret is told beside it."""
    ends, said = outcomes(tmp_path, {"broken": "digest(SECRET); print(SECRET); assert 1 == 2"})
    assert ends["broken"] in ("FAILED", "ERROR")
    assert "assert 1 == 2" in said
    assert "is a secret, and was printed" in said
