"""Data of Secrets is masked, in every form in which kubectl prints objects; that of ConfigMaps is not."""

import json

import pytest
import yaml

from executor.masking.marker import MARKER
from executor.masking.objects import HELD_BYTES
from executor.masking.stream import Masked
from openline.policy import Masking

M = MARKER.decode()
SECRET = {
    "apiVersion": "v1",
    "data": {"password": "aHVudGVyMg==", "user": "YWRtaW4=", "empty": ""},
    "kind": "Secret",
    "metadata": {"name": "db", "namespace": "shop"},
    "type": "Opaque",
}
CONFIG = {
    "apiVersion": "v1",
    "data": {"color": "blue", "script": "#!/bin/sh\necho kind\n", "data:": "kind: Secret"},
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
}


def mask(text: bytes, *, piece_bytes: int = 1 << 20) -> tuple[bytes, int]:
    """Only Secrets, so that nothing is masked for other reasons."""
    masked = Masked(Masking(values=False))
    pieces = [masked.feed(text[start : start + piece_bytes]) for start in range(0, len(text), piece_bytes)]
    return b"".join(pieces) + masked.finish(), masked.masked_values


def masked_secret() -> dict[str, object]:
    return SECRET | {"data": {"password": M, "user": M, "empty": ""}}


def as_list(*items: dict[str, object]) -> dict[str, object]:
    copies = json.loads(json.dumps(items))  # YAML would refer to what it has seen before
    return {"apiVersion": "v1", "items": copies, "kind": "List", "metadata": {"resourceVersion": ""}}


@pytest.mark.parametrize("piece_bytes", [1, 13, 1 << 20])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_secret_alone_and_in_a_list(form: str, piece_bytes: int) -> None:
    for value, expected in [
        (SECRET, masked_secret()),
        (as_list(CONFIG, SECRET, CONFIG, SECRET), as_list(CONFIG, masked_secret(), CONFIG, masked_secret())),
    ]:
        text = json.dumps(value, indent=4) if form == "json" else yaml.safe_dump(value)
        told, count = mask(text.encode() + b"\n", piece_bytes=piece_bytes)
        assert (json.loads(told) if form == "json" else yaml.safe_load(told)) == expected
        assert count == told.count(MARKER) == json.dumps(expected).count(M)


def test_the_annotation_that_apply_leaves() -> None:
    """JSON inside of a string of JSON, and in a block of YAML."""
    key = "kubectl.kubernetes.io/last-applied-configuration"
    applied = SECRET | {"stringData": {"quoted": 'say "hush"\n', "b": "c"}}
    secret = SECRET | {"metadata": {"annotations": {key: json.dumps(applied, separators=(",", ":")) + "\n"}}}
    in_yaml = yaml.safe_dump(secret).partition(f"{key}: ")[0] + f"{key}: |\n      {json.dumps(applied)}\nkind: Secret\n"
    for told in (json.loads(mask(json.dumps(secret, indent=4).encode())[0]), yaml.safe_load(mask(in_yaml.encode())[0])):
        annotation = json.loads(told["metadata"]["annotations"][key])
        assert annotation["stringData"] == {"quoted": M, "b": M}
        assert told["data"] == annotation["data"] == {"password": M, "user": M, "empty": ""}


def test_one_line_of_json() -> None:
    told, count = mask(json.dumps(as_list(SECRET), separators=(",", ":")).encode())
    assert (json.loads(told), count) == (as_list(masked_secret()), 2)


def test_kubectls_own_dialect_of_yaml() -> None:
    head, tail = b'---\n{\n  apiVersion: "v1",\n  kind: "Secret",\n  data: {\n', b"  },\n}\n"
    told, count = mask(head + b'    a: "aHVu",\n    b: "\\\n       x\\n\\\n      ",\n' + tail)
    assert told == head + b'    a: "<masked>",\n    b: "<masked>",\n' + tail
    assert count == 2


def test_values_of_several_lines() -> None:
    text = b"kind: Secret\nstringData:\n  key: |\n    one\n\n    two\n  other: x\nmetadata: {}\n"
    assert mask(text)[0] == b"kind: Secret\nstringData:\n  key: <masked>\n\n  other: <masked>\nmetadata: {}\n"


def test_documents_do_not_mix() -> None:
    """What follows a Secret behind `---` is an object of its own."""
    secret, other = b"kind: Secret\ndata:\n  a: eA==\n", b"data:\n  a: plain\nkind: ConfigMap\n"
    text = b"---\n".join((secret, other, secret))
    assert mask(text)[0].count(b"plain") == 1
    assert mask(text)[1] == 2


def test_a_block_without_a_kind_is_not_kept_for_ever() -> None:
    """At the end it is let go as it is; a larger one than any object can be is masked rather than held."""
    small = b"data:\n  a: plain\n"
    assert mask(small) == (small, 0)
    line = b"  key: " + b"x" * 93 + b"\n"
    told, count = mask(b"data:\n" + line * (HELD_BYTES // 100 + 100), piece_bytes=65536)
    assert b"xxx" not in told
    assert count > HELD_BYTES // 100


def test_it_can_be_switched_off() -> None:
    text = json.dumps(SECRET, indent=4).encode()
    masked = Masked(Masking(secrets=False, values=False))
    assert masked.feed(text) + masked.finish() == text
