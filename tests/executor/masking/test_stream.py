"""All stages together: what real clusters print passes, and no bytes cost more time than others of their number."""

import asyncio
import time
from pathlib import Path

import pytest

from demo.kubectl import kubectl_path
from demo.kubernetes.server import serve
from executor.actions import Ended
from executor.kubectl import Kubectl
from executor.masking.lines import LONGEST_BYTES
from executor.masking.stream import MASK_ALL, Masked
from executor.runner import Run
from openline.policy import Masking

PIECE_BYTES = 64 << 10
NOTHING = Masking(secrets=False, values=False)


def mask(text: bytes, masking: Masking = MASK_ALL) -> tuple[bytes, int]:
    masked = Masked(masking)
    pieces = [masked.feed(text[start : start + PIECE_BYTES]) for start in range(0, len(text), PIECE_BYTES)]
    return b"".join(pieces) + masked.finish(), masked.masked_values


async def test_what_a_cluster_prints_passes(tmp_path: Path) -> None:
    """Objects of many kinds, in every format: names, uids, digests, certificates, references."""
    async with serve(directory=tmp_path) as server, asyncio.timeout(60):
        kubectl = Kubectl(path=kubectl_path(), home=tmp_path, kubeconfig=server.kubeconfig)

        async def ask(*argv: str, masking: Masking) -> Ended:
            end = await Run(kubectl, argv, max_bytes=8 << 20, masking=masking).run()
            assert isinstance(end, Ended)
            return end

        kinds = "pods,nodes,configmaps,serviceaccounts,deployments,customresourcedefinitions,clusterroles,events"
        formats = [("get", kinds, "-A", "-o", form) for form in ("json", "yaml", "kyaml")]
        for argv in [*formats, ("describe", "pods", "-n", "shop")]:
            plain = (await ask(*argv, masking=NOTHING)).stdout.data
            assert len(plain) > 1000
            assert mask(plain) == (plain, 0), argv


async def test_nothing_else_is_kept_of_a_process(tmp_path: Path) -> None:
    """Between the pipe and everything that leaves: counts are of what has left."""
    script = "printf '\\033[1mpassword=\\033[0mhunter2\\n'; echo 'token: a1b2c3d4' >&2"
    live: list[bytes] = []
    for wrote in (None, lambda _source, data: live.append(data)):
        run = Run(Kubectl(path=Path("/bin/sh"), home=tmp_path), ["-c", script], max_bytes=1 << 20, wrote=wrote)
        end = await run.run()
        assert isinstance(end, Ended)
        assert end.masked_values == 2
        assert end.stdout.total_bytes == len(b"password=<masked>\n")
        if wrote is None:
            assert (end.stdout.data, end.stderr.data) == (b"password=<masked>\n", b"token: <masked>\n")
    assert sorted(live) == [b"password=<masked>\n", b"token: <masked>\n"]


def test_a_line_without_an_end_is_handed_on_in_parts() -> None:
    text = b'{"name": "x", "value": "y"},' * (3 * LONGEST_BYTES // 28)
    masked = Masked(MASK_ALL)
    early = b"".join(masked.feed(text[start : start + PIECE_BYTES]) for start in range(0, len(text), PIECE_BYTES))
    assert len(early) > LONGEST_BYTES
    assert early + masked.finish() == text


@pytest.mark.parametrize(
    "seed",
    [
        b"password: x\n", b"token=x ", b"eyJ", b"eyJ.", b'"password":"', b'token\\":\\"', b'token\\\\\\":\\\\\\"',
        b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"://", b"://a:", b"data:\n  a: b\n",
        b"kind: Secret\ndata:\n  a: b\n", b'{"data":{"a":"b"},"kind":"Secret"}', b'"kind":"Secret","data":{"', b"\x1b]",
        b"\x1b[1;", b"name: password ", b'"name":"token",', b"--token ", b'"--token",\n', b"token:\t", b"password: |\n",
        b"token" + b" " * 190, b"'token'='", b"\\", b"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS",
        b'"tokens":["a",', b"tokens:\n- a\n", b"tokens: [\n", b"password:\n----\n", b"map[password:", b'token="',
        b"token='\\", b"name: token\n", b"--token\n", b"- --token\n", b"-----BEGIN PRIVATE KEY-----\n\n", b'"token":',
        b"token = ", b"map[token:a ", b"token:]]", b"<token>", b"token>a", b"token => '",
    ],
)  # fmt: skip
def test_time_is_linear(seed: bytes) -> None:
    """Four times as much takes about four times as long, whatever is repeated; a square would take sixteen times."""

    def cost_s(size: int) -> float:
        text = (seed * (size // len(seed) + 1))[:size]
        begun = time.process_time()
        mask(text)
        return time.process_time() - begun

    small, large = 32 << 10, 128 << 10
    mask(seed * 100)
    assert min(cost_s(large) for _ in range(2)) < 10 * max(min(cost_s(small) for _ in range(3)), 0.0005)
