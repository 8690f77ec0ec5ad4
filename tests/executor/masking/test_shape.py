"""Masking changes values and nothing else: documents stay documents of the same shape, however they arrive."""

import json

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from executor.masking.stream import Masked
from openline.policy import Masking


def mask(text: bytes, cuts: list[int] | None = None) -> bytes:
    """In pieces of these sizes, over and over; in one if there are none."""
    masked = Masked(Masking())
    told, start, number = b"", 0, 0
    while start < len(text):
        size = cuts[number % len(cuts)] if cuts else len(text)
        told += masked.feed(text[start : start + size])
        start, number = start + size, number + 1
    return told + masked.finish()


def shape(value: object) -> object:
    """Keys and lengths, without what stands there."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else None


KEYS = st.sampled_from(
    [
        "password", "passwords", "token", "tokens", "secret", "auth", "--token", "--no-password", "my token",
        "it's a token",
        'a "password"', "token=", "password: ", "name", "value", "args", "image", "x", "db.password", "on",
        "password\\", "1", "y: token",
    ]
)  # fmt: skip
PARTS = st.sampled_from(
    [
        "--no-password", "--use-service-account-credentials", "--token", "--api-key=", "password: ", "password:",
        "tokens: [", "token=", "secret = ", "map[password:", "DB_PASSWORD", "-----BEGIN PRIVATE KEY-----", "a1b2c3d4",
        "hunter2", "correct horse", "'", '"', "\\", "\n", " ", "  ", ": ", ", ", "- ", "-", "}", "]", "{", "[", "|",
        "#", '{"token":"', "'token': ", "value: ",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.lists(PARTS, max_size=5).map("".join), st.none(), st.booleans(), st.integers(-9, 99999), st.floats(-1e9, 1e9)
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict | list))
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@settings(max_examples=200)
@given(document=DOCUMENTS, cuts=CUTS, indent=st.sampled_from([None, 4]), spaced=st.booleans())
@example(document={"args": "--no-password", "image": "i"}, cuts=[3], indent=None, spaced=False)
@example(document=[{"value": "--no-password"}], cuts=[3], indent=4, spaced=True)
def test_json_keeps_its_shape(document: object, cuts: list[int], indent: int | None, spaced: bool) -> None:
    text = json.dumps(document, indent=indent, separators=None if spaced else (",", ":"))
    for layer in (text, json.dumps({"applied": text}, indent=indent)):
        told = mask(layer.encode())
        assert shape(json.loads(told)) == shape(json.loads(layer)), told.decode()
        assert mask(layer.encode(), cuts) == told


@settings(max_examples=200)
@given(document=DOCUMENTS, cuts=CUTS)
@example(document=[{"args": ["--use-service-account-credentials"], "image": "registry/x:1"}], cuts=[3])
@example(document={"x": "a\npassword: 'b'"}, cuts=[3])
def test_yaml_keeps_its_shape(document: object, cuts: list[int]) -> None:
    text = yaml.safe_dump(document)
    told = mask(text.encode())
    assert shape(yaml.safe_load(told)) == shape(yaml.safe_load(text)), told.decode()
    assert mask(text.encode(), cuts) == told


@pytest.mark.parametrize(
    "text",
    [
        b"    - --use-service-account-credentials\n    image: registry/x:1\n",
        b"- --no-password\nimage: x\n",
        b"  - --no-password\n  - image: x\n",
        b"  - --no-password\n- x\n",
        b"      --no-password\n    State:   Waiting\n",
        b'{"value": "--no-password"\n}\n',
        b'{"args":"--no-password","image":"i"}',
        b'["run --no-password","x1"]',
        b'    "a": "--no-password",\n    "b": "c"\n',
        b'    "--no-password",\n    "b": "c"\n',
        b'["a token=","b"]',
        b'{"a password: ":"b"}',
    ],
)
def test_a_flag_without_a_value_takes_none(text: bytes) -> None:
    assert mask(text) == text
