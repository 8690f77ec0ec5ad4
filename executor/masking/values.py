"""How a value is written on the line of its name: in quotes of some kind, or as a word. Patterns only.

Quotes are where masking could do harm: what looks like the start of a string may be the end of the one all around.
So a quote does not open anything before what can follow a string, and a string that does not end is not believed.
"""

# What a value may be that says nothing: no value, a place where it will be put in, the beginning of something larger,
# or a word on what became of it.
NOTHING = (
    rb"(?!(?:[Tt]rue|[Ff]alse|[Nn]ull|NULL|[Nn]one|nil|undefined|unset|~)(?![^\s,;\"'}\])\\])"
    rb"|(?:expired|failed|invalid|is|missing|not|rejected|required|revoked|was)(?=[\s,;.!\"'\\]|\Z)"
    rb"|<(?:none|nil|unset|set |invalid|redacted|masked)|\$[({]|\*\*\*|[|>&](?:\s|\Z)|\{|\[)"
)
# Of escaped quotes, those in strings of JSON inside of one, two and three others.
QUOTE = rb"(?:(?:\\{7}|\\{3}|\\)?+[\"'])"
# What follows a string, and so a quote that ends one.
_FOLLOWS = rb"(?:[\s,:}\]]|\Z)"


def _in_quotes(opens: bytes) -> bytes:
    """A value up to the quote that ends it, or without such, up to any quote or the end of the line."""
    return (
        rb"(?:\"" + opens + NOTHING + rb"(?:(?P<double>(?:[^\"\\\n]|\\.)++)(?=\")|(?P<cut_double>[^\"'\\\r\n]++))"
        rb"|'" + opens + NOTHING
        + rb"(?:(?P<single>(?:[^'\"\\\n]|\\[^'\n]|\\|\"(?!" + _FOLLOWS + rb"))++)(?=')|(?P<cut_single>[^\"'\\\r\n]++))"
        # A quote in single quotes in YAML.
        rb"|''" + opens + NOTHING + rb"(?P<doubled>[^'\"\\\n]++)(?='')"
        # Inside of a string of JSON, where what follows a backslash is escaped once more; and inside of that.
        rb"|\\\"" + opens + NOTHING
        + rb"(?:(?P<inner>(?:[^\"\\\n]|\\\\(?:\\\\|\\\"|[^\"\\\n]))++)(?=\\\")|(?P<cut_inner>[^\"'\\\r\n]++))"
        rb"|(?:\\{7}|\\{3})\"" + opens + NOTHING + rb"(?P<innermost>[^\"'\\\r\n]++))"
    )  # fmt: skip


# Behind a key, where a string must begin.
STRING = _in_quotes(b"")
# Elsewhere.
QUOTED = _in_quotes(rb"(?!" + _FOLLOWS + rb")")
# Not what is a key itself.
WORD = rb"(?P<word>" + NOTHING + rb"(?:[^\s\"'\\,:;&)}\]<]|:(?!\s|\Z)|,(?=[^\s\"'\\\]]))++)(?!:)"
# Of words in sentences, most are English.
SPOKEN = rb"(?=[^\s]{0,64}?[0-9])(?P<word>" + NOTHING + rb"[^\s\"'\\,:;&)}\]<]{6,}+)(?!:)"
NUMBER = rb"-?[0-9][0-9.eE+-]*+(?=[ \t]{0,8}+(?:[,}\]\r\n]|\Z))"
