"""What bodies may have in them, whichever field it is."""

import typing
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.admin_models import TokenBody
from gateway.command_models import CommandBody
from gateway.fanout_models import FanoutBody
from gateway.models import ExecuteBody, SessionBody

BODIES: list[type[BaseModel]] = [ExecuteBody, SessionBody, CommandBody, FanoutBody, TokenBody]


def texts(annotation: Any) -> set[str]:
    """Whether the field takes a string, or a list of them."""
    inner = typing.get_args(annotation)
    if annotation is str:
        return {"one"}
    if typing.get_origin(annotation) is list:
        return {"many"} if "one" in texts(inner[0]) else set()
    return set().union(*map(texts, inner)) if inner else set()


FIELDS = [
    (body, name, kind)
    for body in BODIES
    for name, field in body.model_fields.items()
    for kind in sorted(texts(field.annotation))
]


@pytest.mark.parametrize("unfit", ["\0", "\ud800"], ids=["NUL", "half a pair"])
@pytest.mark.parametrize(("body", "name", "kind"), FIELDS, ids=[f"{b.__name__}-{n}" for b, n, _ in FIELDS])
def test_what_is_no_text_is_in_none(body: type[BaseModel], name: str, kind: str, unfit: str) -> None:
    """It is refused where it stands."""
    text = f"a{unfit}" + "a" * 40
    least = {"cluster_id": "local"} if "cluster_id" in body.model_fields else {}
    with pytest.raises(ValidationError) as caught:
        body.model_validate(least | {name: text if kind == "one" else [text]})
    assert name in {error["loc"][0] for error in caught.value.errors()}


def test_every_text_is_among_them() -> None:
    """Otherwise nothing was tried."""
    names = {name for _, name, _ in FIELDS}
    assert {"cluster_id", "session_id", "args", "command", "clusters", "grep", "correlation_id", "token"} <= names
