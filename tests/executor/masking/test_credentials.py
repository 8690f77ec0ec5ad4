"""What looks like a credential is masked, whatever it stands in; what only resembles one is not."""

import json
from base64 import b64encode

import pytest
import yaml

from executor.masking.stream import Masked
from openline.policy import Masking


def mask(text: bytes, *, piece_bytes: int = 1 << 20) -> tuple[bytes, int]:
    masked = Masked(Masking())
    pieces = [masked.feed(text[start : start + piece_bytes]) for start in range(0, len(text), piece_bytes)]
    return b"".join(pieces) + masked.finish(), masked.masked_values


# Made up, and put together here, so that nobody's scanner finds them in the source.
JWT = b"eyJhbGciOiJIUzI1NiJ9." + b"eyJzdWIiOiIxMjM0In0." + b"c2lnbmF0dXJl"
PEM = (
    b"-----BEGIN RSA "
    + b"PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nc2VjcmV0c2VjcmV0\nYWJj==\n-----END RSA "
    + b"PRIVATE KEY-----"
)
GITHUB = b"ghp_" + b"a1B2" * 9
M = b"<masked>"

SHAPES = {
    "JWT": (b"got " + JWT + b" here", b"got " + M + b" here"),
    "AWS access key": (b"id AKIA" + b"IOSFODNN7EXAMPLE.", b"id " + M + b"."),
    "AWS session key": (b"id ASIA" + b"IOSFODNN7EXAMPLE", b"id " + M),
    "GitHub": (b"(" + GITHUB + b")", b"(" + M + b")"),
    "GitHub, fine-grained": (b"github_pat_" + b"11AB" * 8, M),
    "Slack": (b"xoxb-" + b"1234567890-abcdef", M),
    "Google API key": (b"AIza" + b"SyA1" * 8 + b"abc", M),
    "Google OAuth": (b"ya29." + b"a0Af" * 8, M),
    "npm": (b"//r/:_auth npm_" + b"a1B2" * 9, b"//r/:_auth " + M),
    "OpenAI": (b"got sk-" + b"a1B2" * 12, b"got " + M),
    "OpenAI, of a project": (b"got sk-proj-" + b"a1_-" * 20, b"got " + M),
    "Hugging Face": (b"got hf_" + b"aBcD" * 8 + b"ef", b"got " + M),
    "Vault": (b"got hvs." + b"CAES" * 8, b"got " + M),
    "SendGrid": (b"got SG." + b"a1B2" * 5 + b"cd." + b"a1B2" * 10 + b"abc", b"got " + M),
    "Slack webhook": (
        b"https://hooks.slack.com/services/" + b"T0000/B0000/a1b2c3d4",
        b"https://hooks.slack.com/services/" + M,
    ),
    "bearer": (b"sent Bearer abcd1234EFGH5678ijkl", b"sent Bearer " + M),
    "basic auth": (b"> Authorization: Basic dXNlcjpwYXNz\n", b"> Authorization: Basic " + M + b"\n"),
    "URL": (b"postgres://app:s3cr3t@db:5432/x?y", b"postgres://app:" + M + b"@db:5432/x?y"),
    "PEM": (b"key: |\n" + PEM + b"\nnext: x\n", b"key: |\n" + M + b"\nnext: x\n"),
    "PEM in a string": (
        json.dumps({"k": PEM.decode() + "\n"}).encode(),
        b'{"k": "' + M + b'\\n"}',
    ),
    "PEM in base64": (b"client-key-data: " + b64encode(PEM), b"client-key-data: " + M),
}
NAMED = {
    "YAML": (b"  password: hunter2\n", b"  password: " + M + b"\n"),
    "YAML with spaces": (b"DB_PASSWORD: correct horse\nuser: me\n", b"DB_PASSWORD: " + M + b"\nuser: me\n"),
    "YAML in quotes": (b"apiKey: 'a: b'\n", b"apiKey: " + M + b"\n"),
    "YAML block": (b"token: |\n  a\n  b\nuser: me\n", b"token: " + M + b"\nuser: me\n"),
    "YAML folded": (b"token: " + b"word " * 15 + b"end\n  b\nuser: me\n", b"token: " + M + b"\nuser: me\n"),
    "YAML in quotes, folded": (b"token: 'a\n\n  b'\nuser: me\n", b"token: " + M + b"\nuser: me\n"),
    "JSON": (b'  "clientSecret": "a\\"b",\n', b'  "clientSecret": "' + M + b'",\n'),
    "JSON number": (b'{"password": 1234, "x": 1}', b'{"password": "' + M + b'", "x": 1}'),
    "JSON in a string": (b'"{\\"token\\":\\"abc\\"}"', b'"{\\"token\\":\\"' + M + b'\\"}"'),
    "describe": (b"      API_TOKEN:   abc def\n", b"      API_TOKEN:   " + M + b"\n"),
    "shell": (b"export PGPASSWORD=x1 && run", b"export PGPASSWORD=" + M + b" && run"),
    "shell in quotes": (b"SECRET_KEY='a b' run", b"SECRET_KEY='" + M + b"' run"),
    "flag": (b"run --password=x1 --other", b"run --password=" + M + b" --other"),
    "flag with a space": (b"run --api-key x1 --other", b"run --api-key " + M + b" --other"),
    "arguments in YAML": (b"- --token\n- x1\n- b\n", b"- --token\n- " + M + b"\n- b\n"),
    "arguments in JSON": (b'  "--token",\n  "x1",\n', b'  "--token",\n  "' + M + b'",\n'),
    "env in YAML": (b"- name: DB_PASSWORD\n  value: x1\n", b"- name: DB_PASSWORD\n  value: " + M + b"\n"),
    "env in JSON": (
        b'"name": "DB_PASSWORD",\n    "value": "x1"\n',
        b'"name": "DB_PASSWORD",\n    "value": "' + M + b'"\n',
    ),
    "env on one line": (b'{"name":"A_TOKEN","value":"x1"}', b'{"name":"A_TOKEN","value":"' + M + b'"}'),
    "described data": (
        b"Data\n====\npassword:\n----\nhunter2\n\nuser:\n----\nme\n",
        b"Data\n====\npassword:\n----\n" + M + b"\n\nuser:\n----\nme\n",
    ),
    "properties": (b"db.password = hunter2\n", b"db.password = " + M + b"\n"),
    "AWS configuration": (b"aws_secret_access_key = abcd\n", b"aws_secret_access_key = " + M + b"\n"),
    "TOML": (b'password = "x"\n', b'password = "' + M + b'"\n'),
    "a registry's login": (
        b'{"auths":{"r.io":{"username":"u","auth":"dTpwYXNz"}}}',
        b'{"auths":{"r.io":{"username":"u","auth":"' + M + b'"}}}',
    ),
    "that in a string": (b'"{\\"auth\\":\\"dTpwYXNz\\"}"', b'"{\\"auth\\":\\"' + M + b'\\"}"'),
    "a map in Go": (b"got map[password:hunter user:me]", b"got map[password:" + M + b" user:me]"),
    "behind a map in that": (b"map[labels:map[a:b] password:hunter]", b"map[labels:map[a:b] password:" + M + b"]"),
    "behind a list in that": (b"map[args:[a b] password:hunter x:y]", b"map[args:[a b] password:" + M + b" x:y]"),
    "XML": (b"  <db.password>a b</db.password>\n", b"  <db.password>" + M + b"</db.password>\n"),
    "XML in JSON": (
        b'"x": "\\u003cpassword\\u003ehunter\\u003c/password\\u003e\\n"',
        b'"x": "\\u003cpassword\\u003e' + M + b'\\u003c/password\\u003e\\n"',
    ),
    "PHP": (b"'password' => 'hunter',\n", b"'password' => '" + M + b"',\n"),
    "PHP in JSON": (b"\"x\": \"'password' => 'hunter',\\n\"", b"\"x\": \"'password' => '" + M + b"',\\n\""),
    "Ruby": (b':api_key => "hunter"\n', b':api_key => "' + M + b'"\n'),
    "Ruby, close": (b"password=>'hunter'\n", b"password=>'" + M + b"'\n"),
    "a structure in Go": (b"{User:me Password:hunter2}", b"{User:me Password:" + M + b"}"),
    "close": (b"with password:hunter2 failed", b"with password:" + M + b" failed"),
    "a list in YAML": (b"tokens:\n- a\n- b\nx: y\n", b"tokens:\n- " + M + b"\n- " + M + b"\nx: y\n"),
    "a list in JSON": (
        b'"passwords": [\n  "a",\n  "b"\n],\n"x": ["c"]\n',
        b'"passwords": [\n  "' + M + b'",\n  "' + M + b'"\n],\n"x": ["c"]\n',
    ),
    "a list on one line": (b'{"tokens":["a","b"],"x":["c"]}', b'{"tokens":["' + M + b'","' + M + b'"],"x":["c"]}'),
    "a master key": (b"MEILI_MASTER_KEY=abc", b"MEILI_MASTER_KEY=" + M),
    "a reference's look-alike": (b"clientSecret: web-tls\n", b"clientSecret: " + M + b"\n"),
    "a long secret": (b"secret: " + b"9f86d081884c7d65" * 4 + b"\n", b"secret: " + M + b"\n"),
    "query": (b"GET /x?token=abc&y=1", b"GET /x?token=" + M + b"&y=1"),
    "log": (b"login with token: a1b2c3d4 failed", b"login with token: " + M + b" failed"),
    "log in JSON": (b'{"level":"info","password":"x"}\n', b'{"level":"info","password":"' + M + b'"}\n'),
}
UNTOUCHED = {
    "names": b"my-password-5d9c-x2x secret-reader token-refresher ghp_short AKIASHORT\n",
    "an image": b"image: corp/secret:1.0\nimage: reg:5000/token@sha256:" + b"ab" * 32 + b"\n",
    "a uid": b"uid: 6f1b7c1e-9d1e-4c9f-8d2e-2b8a0a5e7a10\nresourceVersion: 81920\n",
    "references": b"secretName: db\nsecretKeyRef:\n  key: password\n  name: db-secret\n",
    "references to registries": b"imagePullSecrets:\n- name: reg\n",
    "references in JSON": b'"secretKeyRef": {\n "key": "password",\n "name": "db-token"\n}\n',
    "env from a Secret": b"  PASSWORD:  <set to the key 'password' in secret 'db'>  Optional: false\nTokens: <none>\n",
    "flags of mounts": b"automountServiceAccountToken: true\nserviceAccountToken:\n  path: token\n",
    "nothing": b'password: ""\ntoken: \'\'\nsecret: null\nPASSWORD=\n"token": "",\n',
    "a reference to a variable": b"--password=$(DB_PASSWORD)\nTOKEN=${TOKEN}\n",
    "English": b"error getting secret: not found. invalid token: expired; bearer of bad news; basic checks\n",
    "a rule of RBAC": b"- resources: [secrets]\n  verbs: [get]\nsecrets  []  []  [get]\n",
    "a certificate": b"caBundle: "
    + b64encode(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    + b"\n",
    "a certificate in PEM": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "a public key": b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
    "other keys": b'sort_key=a partition-key: b\nprimaryKey: c\nkey=d\n"key": "e"\n',
    "Secrets that are not there": b'SetUp failed for volume "web-secret" : secret "web-tls" not found\n'
    b'"db-credentials" : references non-existent\n"kube-api-access-token" : failed to fetch token: Post "https://x"\n'
    b'error syncing secret "db-password": secrets "db-password" not found\n',
    "a stack trace": b"Secret: db-creds rejected\n    at com.acme.Main\n    at com.acme.Other\n",
    "what became of it": b"Token: expired at 12\ntoken: expired\nPassword: must be changed\n",
    "references by name": b"secret: web-tls\nsecretName: x\nsecretRef: web-tls\n"
    b'"secret": "web-tls",\nsecret="shop/web-tls"\n',
    "a path to a file": b"GOOGLE_APPLICATION_CREDENTIALS: /path\n"
    b"TOKEN_FILE=/x\ntoken: /var/run/secrets/Token\nTOKEN=/run/t\n",
    "maps in Go": b"map[serviceAccountToken:map[expirationSeconds:3607 path:token]] map[token:]\n",
    "XML": b"--password <password> <token/> <password></password> <password>${env.PASSWORD}</password> <token>\n",
    "code": b"token => fetch(token), token=>f(x), 'token' => $token\n",
    "counts": b"pass=12 fail=0\npass: 12\n",
    "close, but no password": b"my-token:abc123f corp/secret:1.0 token:1.27.3 urn:x:token:a1b2c3 Password:changed\n",
    "a setting": b'"auth": "disabled",\nauth: required\n"auth":{"x":1}\n',
    "comparisons": b"if token == nil, password == x\n",
    "lists of something else": b'"secrets": [\n  {"name": "x"}\n]\n'
    b'"resources":["secrets","tokens"],"keys":["a"]\ntokens: []\n',
    "words with a dash": b"disk-" + b"a1b2" * 9 + b" task-" + b"a1b2" * 9 + b"\n",
    "a path": b"--tls-private-key-file=/etc/key.pem --token-auth-file=/x\n",
    "a continue token": b'"continue": "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0"\n',
    "a URL": b"http://host:8080/a@b docker://x@sha256:" + b"0f" * 32 + b" user@host\n",
    "a key of a toleration": b'"key": "node.kubernetes.io/not-ready",\n"value": "x"\n',
}


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", [*SHAPES, *NAMED])
def test_it_is_masked_however_it_is_cut(case: str, piece_bytes: int) -> None:
    text, expected = (SHAPES | NAMED)[case]
    assert mask(text, piece_bytes=piece_bytes) == (expected, expected.count(M))


@pytest.mark.parametrize("case", UNTOUCHED)
def test_it_passes(case: str) -> None:
    assert mask(UNTOUCHED[case]) == (UNTOUCHED[case], 0)


def test_json_stays_json_and_yaml_stays_yaml() -> None:
    values = [
        "plain",
        'with "quotes" and \\',
        "two\nlines\n",
        "ends in \\",
        "colon: and # hash",
        "ümlaut",
        12345,
        PEM.decode(),
    ]
    thing = {"spec": {"env": [{"name": f"X{n}_PASSWORD", "value": value} for n, value in enumerate(values)]}}
    thing["spec"]["token"] = values  # type: ignore[assignment]
    for n, value in enumerate(values):
        thing["spec"][f"key{n}-token"] = value  # type: ignore[assignment]
    for text in (json.dumps(thing, indent=2), json.dumps(thing), json.dumps(json.dumps(thing))):
        told, count = mask(text.encode())
        json.loads(told)
        assert count >= len(values)
    told, count = mask(yaml.safe_dump(thing).encode())
    read = yaml.safe_load(told)
    assert {read["spec"][f"key{n}-token"] for n in range(len(values))} == {M.decode()}


def test_a_key_that_never_ends_swallows_only_what_looks_like_one() -> None:
    text = b"-----BEGIN " + b"PRIVATE KEY-----\nMIIEabcdefabcdef\nkind: Pod\nname: x\n"
    assert mask(text) == (M + b"\nkind: Pod\nname: x\n", 1)


def test_masking_again_changes_nothing() -> None:
    for text, expected in (SHAPES | NAMED).values():
        assert mask(mask(text)[0]) == (expected, 0)
