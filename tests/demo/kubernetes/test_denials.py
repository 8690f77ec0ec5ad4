"""What the real kubectl is refused, in the words of Kubernetes."""

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from subprocess import CompletedProcess

import pytest

from demo.kubernetes.server import ApiServer

Kubectl = Callable[..., Coroutine[None, None, CompletedProcess[str]]]

pytestmark = pytest.mark.asyncio(loop_scope="session")

USER = 'User "system:serviceaccount:openline:openline-executor"'
IN_DEFAULT = 'in the namespace "default"'

# The arguments, and how the message ends.
REFUSED: dict[str, str] = {
    "get secrets": (
        f'(Forbidden): secrets is forbidden: {USER} cannot list resource "secrets" in API group "" {IN_DEFAULT}'
    ),
    "get secrets -A": f'{USER} cannot list resource "secrets" in API group "" at the cluster scope',
    "get secret orders-db -n shop": (
        f'(Forbidden): secrets "orders-db" is forbidden: {USER} cannot get resource "secrets" in API group "" '
        'in the namespace "shop"'
    ),
    "get SECRET/orders-db -n shop": 'secrets "orders-db" is forbidden',
    "describe secret orders-db -n shop": 'secrets "orders-db" is forbidden',
    "get --raw /api/v1/secrets": "secrets is forbidden",
    "get --raw /api/v1/secrets?watch=true": f'secrets is forbidden: {USER} cannot watch resource "secrets"',
    "get --raw /metrics": f'forbidden: {USER} cannot get path "/metrics"',
    "delete pod toolbox": (
        f'pods "toolbox" is forbidden: {USER} cannot delete resource "pods" in API group "" {IN_DEFAULT}'
    ),
    "delete pods --all": 'cannot delete resource "pods"',
    "create configmap x --from-literal=a=b": 'cannot create resource "configmaps"',
    "create deployment x --image=x": 'cannot create resource "deployments" in API group "apps"',
    "scale deploy/web --replicas=0": 'cannot patch resource "deployments/scale" in API group "apps"',
    "label pod toolbox a=b": 'cannot patch resource "pods"',
    "rollout restart deploy/web": 'cannot patch resource "deployments" in API group "apps"',
    "exec toolbox -- id": 'cannot create resource "pods/exec"',
    "attach toolbox": 'cannot create resource "pods/attach"',
    "port-forward toolbox 8080": 'cannot create resource "pods/portforward"',
    "get --raw /api/v1/namespaces/default/pods/toolbox/proxy/": f'{USER} cannot get resource "pods/proxy"',
    "get --raw /api/v1/namespaces/default/services/web/proxy/a/b": 'cannot get resource "services/proxy"',
    "get --raw /api/v1/nodes/birch/proxy/logs": 'cannot get resource "nodes/proxy"',
    "get pods nope": '(NotFound): pods "nope" not found',
    "get deploy nope": '(NotFound): deployments.apps "nope" not found',
    "get foos": 'the server doesn\'t have a resource type "foos"',
    "get --raw /api/v1/foos": "(NotFound): the server could not find the requested resource",
    "get --raw /apis/example.com/v1/foos": "(NotFound): the server could not find the requested resource",
    "get --raw /api/v1/pods?limit=many": "(BadRequest)",
    "get --raw /api/v1/pods?continue=nonsense": "(BadRequest): continue key is not valid",
    "get --raw /api/v1/pods?watch=1&labelSelector=a+b": "(BadRequest): unable to parse requirement",
    "get pods --field-selector colour=red": 'field label not supported: "colour"',
    "logs toolbox --previous": '(BadRequest): previous terminated container "shell" in pod "toolbox" not found',
    "logs -n analytics deploy/warehouse-loader": "does not have a host assigned",
    "logs -n staging deploy/storefront-preview": "is waiting to start: trying and failing to pull image",
    "get --raw /api/v1/namespaces/flood/pods/chatty/log?container=x": "container x is not valid for pod chatty",
}

# What even the admin cannot do.
NOT_ALLOWED = ("delete pod toolbox", "create configmap x --from-literal=a=b", "label pod toolbox a=b")


@pytest.mark.parametrize("command", REFUSED)
async def test_kubectl_is_refused(command: str, kubectl: Kubectl) -> None:
    """Whatever is not there or not granted fails, and kubectl shows the reason that the server gave."""
    outcome = await kubectl(*command.split())
    assert outcome.returncode != 0
    assert REFUSED[command] in outcome.stderr
    assert "bm90LWEtcmVhbC1wYXNzd29yZA" not in outcome.stdout + outcome.stderr


async def test_can_i_says_no(kubectl: Kubectl) -> None:
    """`auth can-i` answers for secrets, for subresources and for verbs as the server itself would decide."""
    for question in ("get secrets", "create pods --subresource=exec", "delete deployments.apps", "get /metrics"):
        outcome = await kubectl("auth", "can-i", *question.split())
        assert (outcome.returncode, outcome.stdout.strip()) == (1, "no")


async def test_the_admin_reads_secrets(kubectl: Kubectl) -> None:
    """With the admin's token a secret can be read."""
    outcome = await kubectl("get", "secret", "orders-db", "-n", "shop", "-o", "jsonpath={.data.password}", admin=True)
    assert outcome.stdout == "bm90LWEtcmVhbC1wYXNzd29yZA=="


@pytest.mark.parametrize("command", NOT_ALLOWED)
async def test_nothing_can_be_written(command: str, kubectl: Kubectl) -> None:
    """Not even the admin can write."""
    outcome = await kubectl(*command.split(), admin=True)
    assert outcome.returncode == 1
    assert "the server does not allow this method on the requested resource" in outcome.stderr


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_a_stranger_is_told_nothing(token: str | None, server: ApiServer) -> None:
    """Without a token that is known, every path answers 401 with a Status."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    for path in ("/api", "/version", "/api/v1/secrets", "/nowhere"):
        code, body = await asyncio.to_thread(_get, server, path, headers)
        assert code == 401
        assert (body["kind"], body["reason"], body["message"]) == ("Status", "Unauthorized", "Unauthorized")


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        ("application/vnd.kubernetes.protobuf", 406),
        ("application/vnd.kubernetes.protobuf,application/json", 200),
        ("text/html, */*", 200),
    ],
)
async def test_only_json_is_spoken(accept: str, code: int, server: ApiServer) -> None:
    """A client that takes JSON gets it, even if it would rather have protobuf; any other is told."""
    headers = {"authorization": f"Bearer {server.token}", "accept": accept}
    found, body = await asyncio.to_thread(_get, server, "/api/v1/namespaces/default/pods", headers)
    assert found == code
    assert body["kind"] == ("PodList" if code == 200 else "Status")


def _get(server: ApiServer, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    context = ssl.create_default_context(cafile=str(server.ca_file))
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
