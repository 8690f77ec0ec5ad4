"""What the agent concludes from what it sees: answers that a cluster could give, and where they lead. Pure."""

import json
import re
from typing import Any

import pytest

from examples.diagnose.diagnosis import diagnose
from examples.diagnose.words import Answer, Finding, GaveUp, Refusal

ROW = "Running true 7 shop web-5d4f-x1"
DENIED = Answer(exit_code=None, refusal=Refusal("POLICY_DENIED", "no", allowed="other things"))


def lines(*values: Any) -> Answer:
    """What a query selects."""
    return Answer("\n".join(json.dumps(value) for value in values))


def crashed(code: int = 1, reason: str = "Error", **more: Any) -> Answer:
    ended = {"terminated": {"exitCode": code, "reason": reason}}
    return lines(
        {"name": "web", "ready": False, "restartCount": 7, "state": {"running": {}}, "lastState": ended} | more
    )


def waiting(reason: str, message: str = "") -> Answer:
    state = {"waiting": {"reason": reason, "message": message}}
    return lines({"name": "web", "ready": False, "restartCount": 0, "state": state, "lastState": {}})


def play(**answers: Answer) -> tuple[Finding | None, list[str]]:
    """What it finds, and what it asked: each command by a word of it and by its query's last field."""
    asked: list[str] = []
    plan = diagnose()
    try:
        step = next(plan)
        while True:
            words = " ".join(step.argv)
            query = step.jsonpath or ""
            kind = {"get pods": "pods", "logs": "logs", "get events": "events", "get services": "services",
                    "get endpoints": "endpoints", "get configmap ": "configmap", "get configmaps": "configmaps",
                    "get secrets": "secrets", "get nodes": "nodes", "rollout": "history"}  # fmt: skip
            name = next((value for start, value in kind.items() if words.startswith(start)), "pod")
            if name == "pod":
                name = "status" if "Statuses" in query else "env" if "envFrom" in query else "spec"
            asked.append(name)
            step = plan.send(answers[name])
    except StopIteration as end:
        return end.value, asked


REFUSED = "2026-11-29T16:32:38Z ERROR dial tcp {}: connect: connection refused"
PROBE = "Readiness probe failed: HTTP probe failed with statuscode: 503"
PULL = 'Failed to pull image "{}": {}'

CASES: dict[str, tuple[dict[str, Answer], str, str, str]] = {
    # What a cluster answers; the way that leads to; what is concluded; what is shown for it.
    "a setting that is nowhere": (
        {
            "status": crashed(),
            "logs": Answer("FATAL: DATABASE_URL is not set"),
            "env": lines({"name": "PORT", "value": "80"}, {"configMapRef": {"name": "web"}}),
            "configmap": lines({"MODE": "fast"}),
        },
        "pods status logs env configmap",
        "web needs DATABASE_URL, and neither its environment nor a ConfigMap of it has that",
        "settings that it is given: PORT, MODE",
    ),
    "a setting that Python misses": (
        {"status": crashed(), "logs": Answer("KeyError: 'API_TOKEN'"), "env": lines()},
        "pods status logs env",
        "web needs API_TOKEN, and neither its environment nor a ConfigMap of it has that",
        "settings that it is given: none",
    ),
    "a setting that is there, and wrong": (
        {
            "status": crashed(),
            "logs": Answer("missing or malformed LOG_LEVEL"),
            "env": lines({"name": "LOG_LEVEL", "value": "loud"}),
        },
        "pods status logs env",
        "web does not take LOG_LEVEL as it is given",
        'pod shop/web-5d4f-x1: LOG_LEVEL="loud"',
    ),
    "a port that is wrong": (
        {
            "status": crashed(),
            "logs": Answer(REFUSED.format("10.0.0.7:5433")),
            "services": Answer("10.0.0.7 5432,5434 shop db"),
            "env": lines({"name": "DB", "value": "postgres://10.0.0.7:5433/shop"}),
            "history": Answer("3         web 2.0"),
        },
        "pods status logs services env history",
        "pod shop/web-5d4f-x1 has DB=postgres://10.0.0.7:5433/shop; web connects to 10.0.0.7:5433, "
        "but service shop/db is on port 5432,5434",
        "revision 3 of web: web 2.0",
    ),
    "a host that is no service": (
        {
            "status": crashed(),
            "logs": Answer("connect ETIMEDOUT db.shop:5432: connection timed out"),
            "services": Answer(),
            "env": lines({"name": "DB_HOST", "value": "db.shop"}),
            "history": Answer(exit_code=1, stderr="not found"),
        },
        "pods status logs services env history",
        "pod shop/web-5d4f-x1 has DB_HOST=db.shop; web connects to db.shop:5432, but no service is at db.shop",
        'DB_HOST="db.shop"',
    ),
    "a service with nothing behind it": (
        {
            "status": crashed(),
            "logs": Answer(REFUSED.format("10.0.0.7:5432")),
            "services": Answer("10.0.0.7 5432 shop db"),
            "endpoints": lines(),
        },
        "pods status logs services endpoints",
        "web connects to the service shop/db, and no pod is ready behind it",
        "connection refused",
    ),
    "a service that is well": (
        {
            "status": crashed(),
            "logs": Answer(REFUSED.format("10.0.0.7:5432")),
            "services": Answer("10.0.0.7 5432 shop db"),
            "endpoints": lines("10.244.0.9"),
        },
        "pods status logs services endpoints",
        "web ends with exit code 1, and says why",
        "connection refused",
    ),
    "services that may not be seen": (
        {"status": crashed(), "logs": Answer(REFUSED.format("10.0.0.7:5432")), "services": DENIED},
        "pods status logs services",
        "web ends with exit code 1, and says why",
        "connection refused",
    ),
    "a log that says it": (
        {"status": crashed(2), "logs": Answer("Error: bad flag --prot\nerror: giving up")},
        "pods status logs",
        "web ends with exit code 2, and says why",
        "error: giving up",
    ),
    "a log that may not be seen": (
        {"status": crashed(), "logs": DENIED, "events": lines("Back-off restarting failed container", "disk is full")},
        "pods status logs events",
        "web cannot run",
        "disk is full",
    ),
    "memory": (
        {"status": crashed(137, "OOMKilled"), "spec": lines("64Mi")},
        "pods status spec",
        "web is killed when it needs more memory than its limit, 64Mi",
        "OOMKilled",
    ),
    "a liveness probe": (
        {"status": crashed(137), "events": lines("Liveness probe failed: timeout", "Back-off restarting …")},
        "pods status events",
        "web was ended from outside",
        "Liveness probe failed: timeout",
    ),
    "a program that is not there": (
        {"status": crashed(128, "StartError"), "events": lines('exec: "serve": executable file not found in $PATH')},
        "pods status events",
        "web could not be started",
        "executable file not found",
    ),
    "a readiness probe": (
        {
            "status": crashed(lastState={}),
            "events": lines(PROBE),
            "spec": lines({"httpGet": {"path": "/ready"}}),
        },
        "pods status events spec",
        "the readiness probe of web fails",
        "readinessProbe: {'httpGet': {'path': '/ready'}}",
    ),
    "an image that may not be had": (
        {
            "status": waiting("ErrImagePull"),
            "events": lines(PULL.format("shop/web:1", "401 unauthorized"), "Error: ErrImagePull"),
        },
        "pods status events",
        "the registry does not let it have the image: shop/web:1",
        "401 unauthorized",
    ),
    "a registry that is away, with no events left": (
        {"status": waiting("ImagePullBackOff", PULL.format("r.test/web:1", "no such host")), "events": lines()},
        "pods status events",
        "the registry cannot be reached: r.test/web:1",
        "no such host",
    ),
    "a ConfigMap that is not there": (
        {
            "status": waiting("CreateContainerConfigError", 'configmap "web-conf" not found'),
            "configmaps": Answer("configmap/web-config\nconfigmap/kube-root-ca.crt"),
        },
        "pods status configmaps",
        "web needs the configmap web-conf, which is not there",
        "there are: configmap/web-config, configmap/kube-root-ca.crt",
    ),
    "a Secret that is not there, and none may be seen": (
        {"status": waiting("CreateContainerConfigError", 'secret "web" not found'), "secrets": DENIED},
        "pods status secrets",
        "web needs the secret web, which is not there",
        'secret "web" not found',
    ),
    "no node with a graphics card": (
        {
            "status": lines(),
            "events": lines("0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: …"),
            "spec": lines("4"),
            "nodes": Answer("alder   2\nbirch   2"),
        },
        "pods status events spec nodes",
        "it asks for 4 of nvidia.com/gpu, and no node has that to give",
        "birch has 2",
    ),
    "a taint": (
        {"status": lines(), "events": lines("0/1 nodes are available: 1 node(s) had taint(s). preemption: …")},
        "pods status events",
        "0/1 nodes are available: 1 node(s) had taint(s).",
        "taint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_evidence_leads_to_a_cause(name: str) -> None:
    """By the shortest way, and with the line that says so."""
    answers, way, cause, evidence = CASES[name]
    finding, asked = play(pods=Answer(ROW), **answers)
    assert asked == way.split()
    assert finding is not None
    assert (finding.subject, finding.cause) == ("shop/web-5d4f-x1", cause)
    assert any(evidence in line for line in finding.evidence), finding.evidence


def test_no_pod_in_trouble_is_no_finding() -> None:
    assert play(pods=Answer()) == (None, ["pods"])


def test_a_pod_that_got_well_meanwhile_is_no_finding() -> None:
    well = lines({"name": "web", "ready": True, "restartCount": 0, "state": {"running": {}}, "lastState": {}})
    assert play(pods=Answer(ROW), status=well) == (None, ["pods", "status"])


@pytest.mark.parametrize("answer", [DENIED, Answer(exit_code=1, stderr="Forbidden")])
def test_pods_that_cannot_be_listed_are_not_taken_for_none(answer: Answer) -> None:
    with pytest.raises(GaveUp, match="cannot be listed"):
        play(pods=answer)


def test_output_that_is_no_json_is_no_evidence() -> None:
    """Such as what was too long, and cut."""
    assert play(pods=Answer(ROW), status=crashed(), logs=Answer(), events=Answer("{\n"))[0] is None


@pytest.mark.parametrize(
    "row", ["10.0.0.7 5432 shop", "10.0.0.7 5432 shop db and more", "Warning: v1 of services is deprecated"]
)
def test_a_row_that_cannot_be_read_is_said(row: str) -> None:
    """And neither guessed at nor a traceback."""
    answers = dict(CASES["a port that is wrong"][0], services=Answer(row))
    with pytest.raises(GaveUp, match="services cannot be read: " + re.escape(row)):
        play(pods=Answer(ROW), **answers)


def test_the_pod_that_restarts_most_comes_first_and_then_the_others() -> None:
    """And no more than a few, when none can be explained."""
    rows = "\n".join(f"Running true,true 1,{count} shop web-{count}" for count in range(9))
    finding, asked = play(pods=Answer(rows), status=crashed(), logs=Answer(), events=lines())
    assert finding is None
    assert asked == ["pods", *["status", "logs", "events"] * 5]
    finding, _ = play(pods=Answer(rows), status=crashed(137, "OOMKilled"), spec=lines())
    assert finding is not None
    assert finding.subject == "shop/web-8"
