"""The same for those who use Locust: `locust -f loadtest/locustfile.py --host http://127.0.0.1:8080`.

Locust is not installed with openline. It costs far more CPU for a request than openline does, so start several of its
processes (`--processes -1`) before you believe its figures.
"""

import os

from locust import HttpUser, between, task

CLUSTER_ID = os.environ.get("OPENLINE_CLUSTER_ID", "local")
# The commands are all the same, and each is to be run.
HEADERS = {"X-API-Key": os.environ.get("OPENLINE_API_KEY", "test-key"), "Cache-Control": "no-cache"}


class AiAgent(HttpUser):
    """An AI agent that looks around in one cluster, and thinks between its commands."""

    wait_time = between(0.5, 3.0)

    @task(6)
    def get_pods(self) -> None:
        self._execute("get", "pods")

    @task(3)
    def get_events(self) -> None:
        self._execute("events")

    @task(1)
    def version(self) -> None:
        self._execute("version")

    def _execute(self, *args: str) -> None:
        body = {"cluster_id": CLUSTER_ID, "args": args}
        name = " ".join(args)
        with self.client.post("/debug/execute", json=body, headers=HEADERS, name=name, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(answer.json().get("reason", answer.status_code))
            elif answer.json()["status"] != "success":
                answer.failure(answer.json()["error"])
