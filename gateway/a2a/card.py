"""The agent card: what this agent is, for everybody who asks. Both versions of the protocol read the same document.

0.3 and 1.0 call most things differently, and each leaves alone what it does not know.
"""

import re
from typing import Any

import orjson
from fastapi import HTTPException, Request, Response

from gateway.a2a.asking import DATA_EXAMPLE, EXAMPLE
from gateway.express import Route as ShownRoute
from openline import __version__

PATH = "/.well-known/agent-card.json"
# So long a card may be kept that says the same to everybody.
MAX_AGE_S = 3600
# A name or an address, and maybe a port: nothing that could end a URL's host early, or be a path.
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")

_MODES = {"in": ["text/plain", "application/json"], "out": ["text/plain", "application/json"]}
_DESCRIPTION = (
    "Runs kubectl in Kubernetes clusters that nobody can dial into. There is no model inside: nothing is understood, "
    "planned or summarised. Each message is one read-only kubectl command for one cluster, and the answer is what "
    "kubectl printed."
)
_SKILL_DESCRIPTION = (
    "Runs one read-only kubectl command (get, describe, logs, top, events, …) in one cluster. A text part is one line: "
    "the cluster, a colon, the command. A data part has cluster, command or argv, namespace, fresh and timeout_seconds "
    "(10 if not given). There is no shell: no pipes. Output comes as artifacts named stdout and stderr, with exit_code "
    "and truncated in their metadata. A task that is rejected has run nothing, and its message says what to do instead."
)


def card(url: str) -> dict[str, Any]:
    """`url` is where messages go."""
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer", "httpAuthSecurityScheme": {"scheme": "bearer"}},
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "apiKeySecurityScheme": {"location": "header", "name": "X-API-Key"},
        },
    }
    return {
        "name": "openline",
        "description": _DESCRIPTION,
        "version": __version__,
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version} for version in ("1.0", "0.3")
        ],
        "protocolVersion": "0.3.0",
        "url": url,
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
        "defaultInputModes": _MODES["in"],
        "defaultOutputModes": _MODES["out"],
        "securitySchemes": schemes,
        "securityRequirements": [{"schemes": {name: {"list": []}}} for name in schemes],
        "security": [{name: []} for name in schemes],
        "skills": [
            {
                "id": "kubectl",
                "name": "Run a kubectl command",
                "description": _SKILL_DESCRIPTION,
                "tags": ["kubernetes", "kubectl", "read-only"],
                "examples": [EXAMPLE, "prod-east: logs web-0 -n shop --tail=50", DATA_EXAMPLE],
            }
        ],
    }


class Card:
    """The route. Public: whoever is to show a key learns here how."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    async def answer(self, http: Request) -> Response:
        http.scope["route"] = ShownRoute(PATH)
        base = self._public_url or _asked_for(http)
        # What follows from a Host header is for whoever sent it.
        kept = f"public, max-age={MAX_AGE_S}" if self._public_url else "no-store"
        content = orjson.dumps(card(f"{base}/a2a"))
        return Response(content, media_type="application/json", headers={"Cache-Control": kept})


def _asked_for(http: Request) -> str:
    host = http.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise HTTPException(400, "The Host header names no host")
    return f"{http.scope['scheme']}://{host}"
