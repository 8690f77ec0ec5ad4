"""The configurations of clients in examples/: that they can be read, lead to a gateway, and hold no key."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.mcp.stdio import PROGRAM
from gateway.mcp.stdio_settings import StdioSettings
from openline.settings import load

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "examples" / "mcp").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_configuration(file: Path, tmp_path: Path) -> None:
    """Of a client that speaks HTTP, or that starts the program, with flags that it takes."""
    text = file.read_text()
    content: dict[str, Any] = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    servers = next(content[name] for name in ("mcpServers", "servers", "mcp_servers") if name in content)
    server = servers["openline"]
    if "command" in server:
        assert [server["command"], server["args"][0]] == PROGRAM.split()
        (tmp_path / "key").write_text("a-key-for-a-test")
        flags = [str(tmp_path / "key") if flag == "/path/to/openline.key" else flag for flag in server["args"][1:]]
        settings = load(StdioSettings, program=PROGRAM, arguments=flags)
        assert settings.url == "http://127.0.0.1:8080/mcp"
        assert settings.read_key() == "a-key-for-a-test"
    else:
        [url] = [server[name] for name in ("url", "serverUrl", "httpUrl") if name in server]
        assert url == "http://127.0.0.1:8080/mcp"
        key = server.get("bearer_token_env_var") or server["headers"]["Authorization"].removeprefix("Bearer ")
        assert key.startswith("$") or key == "OPENLINE_API_KEY"
    assert file.name in (ROOT / "docs" / "mcp.md").read_text()
