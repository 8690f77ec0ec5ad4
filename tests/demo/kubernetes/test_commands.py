"""What the real kubectl prints: one row for each command, with facts about its output."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from subprocess import CompletedProcess
from time import monotonic

import pytest

PATIENCE_S = 30.0

Kubectl = Callable[..., Coroutine[None, None, CompletedProcess[str]]]

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The arguments, and what must be in the output.
COMMANDS: dict[str, tuple[str, ...]] = {
    "get pods": ("NAME", "READY", "STATUS", "RESTARTS", "AGE", "web-", "toolbox", "2/2"),
    "get pods -A": ("NAMESPACE", "CrashLoopBackOff", "Pending", "kube-apiserver-alder", "payments-db-0"),
    "get pods -o wide": ("NOMINATED NODE", "10.244.", "birch", "cedar"),
    "get pods -Aowide": ("NAMESPACE", "READINESS GATES"),
    "get pods -o name": ("pod/toolbox",),
    "get pods -o yaml": ("kind: List", "- apiVersion: v1", "kind: Pod"),
    "get pod toolbox -o jsonpath={.spec.containers[0].image}": ("alpine:3.22",),
    "get pods -o custom-columns=N:.metadata.name,P:.status.phase": ("toolbox", "Running"),
    "get pods -A --sort-by=.metadata.creationTimestamp": ("kube-apiserver-alder",),
    "get pods -l app=web": ("web-",),
    "get pods -A -l app in (web,cart),tier!=none": ("web-", "cart-"),
    "get pods -A --field-selector status.phase=Pending": ("warehouse-loader-", "storefront-preview-"),
    "get pods -A --field-selector spec.nodeName=alder": ("etcd-alder",),
    "get pods -A --chunk-size=5 -o name": ("pod/dashboards-", "pod/storefront-preview-"),
    "get po,svc,cm": ("pod/toolbox", "service/kubernetes", "configmap/web-config"),
    "get deploy/web svc/web": ("deployment.apps/web", "service/web", "80:30080/TCP"),
    "get all -n shop": (
        "pod/cart-",
        "service/catalog",
        "deployment.apps/recommender",
        "replicaset.apps/",
        "statefulset.apps/orders-db",
        "job.batch/orders-migrate-0042",
        "horizontalpodautoscaler.autoscaling/catalog",
    ),
    "get nodes": ("alder", "control-plane", "Ready", "v1.37.1"),
    "get ns": ("payments", "Active"),
    "get ing,netpol,pvc,pdb,hpa,cert,quota,limits -n shop": (
        "shop.example.com",
        "app=orders-db",
        "Bound",
        "cpu: 43%/70%",
        "certificate.cert-manager.io/shop-tls",
        "requests.cpu: 1750m/8",
    ),
    "get pv,sc,ingressclass,crd,clusterroles": ("shop/data-orders-db-0", "standard (default)", "openline-executor"),
    "get ds,sts,controllerrevisions -A": ("kube-proxy", "prometheus", "daemonset.apps/kube-proxy"),
    "get cj,jobs": ("heartbeat", "Complete", "1/1"),
    "get ep,endpointslices -n payments": ("endpoints/payments-db", ":5432"),
    "get rs -n payments -o wide": ("registry.example.com/payments/api:2.13.0",),
    "get leases -n kube-node-lease": ("birch",),
    "get events -n payments": ("BackOff", "Back-off restarting failed container api"),
    "get events.events.k8s.io -n payments": ("BackOff",),
    "get role,rolebinding -n payments -o wide": ("on-call", "payments-on-call"),
    "get --raw /readyz": ("ok",),
    "get pod toolbox --subresource=status": ("toolbox",),
    "describe pod -n payments -l app=payments-api --show-events": (
        "Reason:       CrashLoopBackOff",
        "Exit Code:    1",
        "payments-config  ConfigMap  Optional: false",
        "<set to the key 'password' in secret 'payments-db-credentials'>",
        "Back-off restarting failed container",
    ),
    "describe pod -n analytics -l app=warehouse-loader": ("FailedScheduling", "2 Insufficient cpu"),
    "describe pod -n staging -l app=storefront-preview": ("Failed to pull image", "2.4.0-rc1: not found"),
    "describe pod -n shop -l app=recommender": ("OOMKilled", "Exit Code:    137"),
    "describe cm payments-config -n payments": ("DATABASE_PORT:", "5433"),
    "describe svc payments-db -n payments": ("Port:", "5432/TCP", "Endpoints:"),
    "describe deploy web": ("3 desired | 3 updated | 3 total | 3 available", "ScalingReplicaSet", "NewReplicaSet:"),
    "describe sts orders-db -n shop": ("2 Running / 0 Waiting", "Capacity:      20Gi"),
    "describe ds kube-proxy -n kube-system": ("Number of Nodes Scheduled with Available Pods: 3",),
    "describe cj heartbeat": ("Schedule:", "* * * * *", "Last Schedule Time:"),
    "describe job orders-migrate-0042 -n shop": ("1 Succeeded",),
    "describe node birch": ("Non-terminated Pods:", "Allocated resources:", "RenewTime:", "KubeletReady"),
    "describe hpa,ing,netpol,pdb,pvc -n shop": ("catalog", "shop.example.com", "Allowing ingress traffic"),
    "describe ns shop": ("Resource Quotas", "Resource Limits"),
    "describe clusterrole openline-executor": ("pods/log", "[get list watch]"),
    "logs toolbox": ("ready",),
    "logs deploy/web --tail=3": ("GET /",),
    "logs -l app=web --all-containers --prefix --tail=1": ("/web]", "/log-shipper]"),
    "logs -n payments deploy/payments-api --previous": (
        "payments-db",
        "5433: connect: connection refused",
        "giving up",
    ),
    "logs -n payments deploy/payments-api --previous --tail=1": ("FATAL",),
    "logs -n payments payments-db-0 --tail=3": ("listening on port 5432",),
    "logs -n shop deploy/catalog --since=5s --timestamps": ('{"level":', "000Z "),
    "events -n payments": ("BackOff", "Warning"),
    "events --for deploy/web": ("ScalingReplicaSet",),
    "top pods -A": ("CPU(cores)", "payments-db-0"),
    "top pods --containers": ("log-shipper",),
    "top nodes": ("birch", "%"),
    "explain pods.spec.containers.resources": ("limits", "<map[string]string>"),
    "explain deploy --recursive": ("strategy", "containers", "-required-"),
    "explain cert.spec": ("secretName", "-required-"),
    "explain events --api-version=events.k8s.io/v1": ("regarding",),
    "api-resources": ("deployments", "deploy", "metrics.k8s.io/v1beta1", "certificates"),
    "api-resources --namespaced=false -o name": ("nodes", "clusterroles.rbac.authorization.k8s.io"),
    "api-versions": ("apps/v1", "v1", "cert-manager.io/v1"),
    "version": ("Server Version: v1.37",),
    "cluster-info": ("Kubernetes control plane", "CoreDNS"),
    "auth can-i list pods": ("yes",),
    "auth can-i --list": ("pods/log", "[get list watch]", "selfsubjectaccessreviews"),
    "auth whoami": ("system:serviceaccount:openline:openline-executor",),
    "rollout history deploy/payments-api -n payments": ("database settings moved to ConfigMap payments-config",),
    "rollout history deploy/web --revision=1": ("nginx:1.27.5",),
    "rollout history ds/kube-proxy -n kube-system": ("REVISION",),
    "rollout history sts/payments-db -n payments": ("REVISION",),
    "rollout status deploy/web": ("successfully rolled out",),
    "rollout status sts/payments-db -n payments": ("roll out complete",),
    "rollout status ds/kube-proxy -n kube-system": ("successfully rolled out",),
    "wait pod/toolbox --for=condition=Ready --timeout=5s": ("condition met",),
}

# Arguments with spaces are not split there.
KEPT_WHOLE = ("app in (web,cart),tier!=none",)


def split(command: str) -> list[str]:
    for number, whole in enumerate(KEPT_WHOLE):
        command = command.replace(whole, f"\0{number}")
    return [KEPT_WHOLE[int(part[1:])] if part.startswith("\0") else part for part in command.split(" ")]


@pytest.mark.parametrize("command", COMMANDS)
async def test_kubectl_prints(command: str, kubectl: Kubectl) -> None:
    """kubectl accepts the server, succeeds, and shows what is there.

    The cluster lives: a container that crashes again and again runs for some seconds now and then.
    """
    missing = list(COMMANDS[command])
    until = monotonic() + PATIENCE_S
    while missing and monotonic() < until:
        outcome = await kubectl(*split(command))
        assert outcome.returncode == 0, outcome.stderr
        missing = [fact for fact in COMMANDS[command] if fact not in outcome.stdout]
        if missing:
            await asyncio.sleep(1.0)
    assert missing == []


async def test_names_are_the_same_on_every_page(kubectl: Kubectl) -> None:
    """A list in pages of four names each pod once, as the list in one piece does."""
    whole = await kubectl("get", "pods", "-A", "-o", "name", "-l", "app!=heartbeat", "--chunk-size=0")
    pages = await kubectl("get", "pods", "-A", "-o", "name", "-l", "app!=heartbeat", "--chunk-size=4")
    assert pages.stdout == whole.stdout
    assert len(set(whole.stdout.splitlines())) > 30


async def test_sort_by_sorts(kubectl: Kubectl) -> None:
    """`--sort-by` gets whole objects in its table, and so can sort by any field."""
    outcome = await kubectl("get", "pods", "-A", "--sort-by=.spec.nodeName", "--no-headers", "-o", "wide")
    nodes = [line.split()[-3] for line in outcome.stdout.splitlines() if "<none>   <none>   " not in line]
    placed = [node for node in nodes if node in ("alder", "birch", "cedar")]
    assert placed == sorted(placed)
    assert len(placed) > 30


async def test_json_is_a_list_with_a_revision(kubectl: Kubectl) -> None:
    """`--raw` shows the list as a client library gets it: PodList, and a resourceVersion to watch from."""
    outcome = await kubectl("get", "--raw", "/api/v1/namespaces/default/pods?limit=1")
    listed = json.loads(outcome.stdout)
    assert listed["kind"] == "PodList"
    assert int(listed["metadata"]["resourceVersion"]) > 1
    assert listed["metadata"]["continue"]
    assert listed["metadata"]["remainingItemCount"] >= 1


async def test_a_failed_rollout_is_told(kubectl: Kubectl) -> None:
    """`rollout status` of what crash-loops ends at once, and says why."""
    outcome = await kubectl("rollout", "status", "deploy/payments-api", "-n", "payments")
    assert outcome.returncode == 1
    assert "exceeded its progress deadline" in outcome.stderr
