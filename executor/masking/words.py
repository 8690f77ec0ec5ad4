"""The words at which something to be masked may begin, in lower case."""

import re
from base64 import b64encode

from executor.masking.shapes import KEY_ENDS

_BEFORE = rb"(?<![A-Za-z0-9_-])"


def _token(pattern: bytes) -> re.Pattern[bytes]:
    """A token that stands for itself, whole."""
    return re.compile(_BEFORE + rb"(?P<value>" + pattern + rb")")


def _encoded(kinds: tuple[bytes, ...]) -> bytes:
    """How PEM private keys begin in base64, as far as it does not depend on what follows."""
    return b"|".join(re.escape(b64encode(b"-----BEGIN %bPRIVATE KEY" % kind)[:28]) for kind in kinds)


_GITHUB = _token(rb"gh[pousr]_[A-Za-z0-9]{36,255}+")
_SLACK = _token(rb"xox[abeprs]-[A-Za-z0-9-]{10,255}+")
_AWS = _token(rb"A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9_-])")
_STRIPE = _token(rb"[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}+")

# Credentials that are known by their shape.
SHAPES: dict[bytes, re.Pattern[bytes]] = {
    # A JSON Web Token: header and payload are JSON objects in base64.
    b"eyj": _token(rb"eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{4,}+\.[A-Za-z0-9_-]*+"),
    b"akia": _AWS,
    b"asia": _AWS,
    **dict.fromkeys((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), _GITHUB),
    b"github_pat_": _token(rb"github_pat_[A-Za-z0-9_]{22,255}+"),
    b"glpat-": _token(rb"glpat-[A-Za-z0-9_-]{20,255}+"),
    **dict.fromkeys((b"xoxa-", b"xoxb-", b"xoxe-", b"xoxp-", b"xoxr-", b"xoxs-"), _SLACK),
    b"aiza": _token(rb"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    b"a29.": _token(rb"ya29\.[A-Za-z0-9_-]{20,2048}+"),
    b"pm_": _token(rb"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_-])"),
    b"sk-": _token(rb"sk-(?=[A-Za-z_-]{0,256}[0-9])[A-Za-z0-9_-]{32,256}+"),
    b"_": _token(rb"hf_[A-Za-z0-9]{30,64}+"),
    b"s.": _token(rb"hvs\.[A-Za-z0-9_-]{20,512}+"),
    b"sg.": _token(rb"SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,128}+"),
    b"slack.com/services/": re.compile(rb"slack\.com/services/(?P<value>[A-Za-z0-9/_-]{8,256}+)"),
    **dict.fromkeys((b"sk_live_", b"rk_live_", b"sk_test_", b"rk_test_"), _STRIPE),
    # user:password@ of a URL.
    b"://": re.compile(rb"://[^\s/:@\"'<>\\]{0,128}+:(?P<value>[^\s/@\"'<>\\]{1,256}+)@"),
    b"bearer ": re.compile(rb"(?i:bearer) {1,4}+(?P<value>(?=[^\s\"']{0,256}[0-9])[A-Za-z0-9._~+/=-]{16,}+)"),
    b"authorization": re.compile(
        rb"(?i:authorization)(?:\\{0,3}[\"'])?[ \t]{0,8}+[:=][ \t]{0,8}+(?:\\{0,3}[\"'])?"
        rb"(?i:basic|bearer|token|apikey)[ \t]{1,8}+(?P<value>[^\s\"'\\<,;]{4,}+)"
    ),
    # A private key in base64, as in a kubeconfig or a Secret; certificates begin otherwise.
    b"ls0tls1crudjti": re.compile(
        rb"(?P<value>(?:"
        + _encoded((b"", b"RSA ", b"EC ", b"DSA ", b"OPENSSH ", b"ENCRYPTED "))
        + rb")[A-Za-z0-9+/=]*+)"
    ),
}
# The words that begin so many bytes behind what they stand for: a letter that no other word begins with would cost the
# search as much as ten words do.
BEFORE_WORD = {b"a29.": 1, b"pm_": 1, b"s.": 2, b"_": 2}
# What must stand before those that are short.
_ENDS: dict[bytes, bytes] = {b"s.": rb"(?<=hvs\.)", b"_": rb"(?<=hf_)"}
# Names, or ends of names, whose value is a credential: see `named`. Behind each, what else must be there for a look.
_NOT_ON = rb"(?![ace-gi-uw-z])"  # but for the words that may follow
_OR_MORE = rb"(?![ace-gi-rt-uw-z]|s[^\"'\\:])"  # or a plural
NAMES: dict[bytes, bytes] = {
    b"pass": rb"(?=[wpc]|[^a-z])",
    b"pwd": _NOT_ON,
    b"secret": _NOT_ON,
    b"token": _OR_MORE,
    b"auth": rb"(?=[\"'\\:])",
    b"credential": b"",
    # API key, access key, master key and so on: the last letters of what `named` knows
    b"key": _OR_MORE + rb"(?:(?<=[cinrtesgd]key)|(?<=[cinrtesgd][_-]key))",
}


def _looked_for() -> re.Pattern[bytes]:
    """All words at once, by their first letters: an alternation tries each of its branches at every such letter."""
    words = {word: re.escape(word[1:]) + (NAMES | _ENDS).get(word, b"") for word in (*NAMES, *SHAPES, KEY_ENDS)}
    by_letter: dict[bytes, list[bytes]] = {}
    for word, rest in words.items():
        by_letter.setdefault(word[:1], []).append(rest)
    branches = (re.escape(letter) + b"(?:" + b"|".join(rests) + b")" for letter, rests in by_letter.items())
    return re.compile(b"|".join(branches))


CANDIDATE = _looked_for()
