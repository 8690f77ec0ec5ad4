"""Reads argv as kubectl's flag library (spf13/pflag) does, and finds the verb where its command library (cobra) does.

The two disagree about where a verb may hide: cobra looks for it before it knows which flags the verb has, and takes
what follows an unknown flag for that flag's value. Before the verb is whole, therefore, only flags that every verb has
are read; those both libraries know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from openline.policy.denial import Refused, Rule, nearest, shown
from openline.policy.instead import VERBS_INSTEAD
from openline.policy.tables import BEFORE, BOOL, DENIED, GLOBAL, SHORT, SHORT_IN, SUB_VERB_ALIASES, VERBS, Kind

# Switches in one word, such as the two in -Aw: far more than there are.
MAX_LETTERS = 16
_FIRST_WORDS = sorted({name.partition(" ")[0] for name in VERBS})


@dataclass(frozen=True, slots=True)
class Lexed:
    """An argv taken apart. `verb` is a key of VERBS; `flags` are in the order they came, by their full names."""

    verb: str
    flags: tuple[tuple[str, str], ...]
    positionals: tuple[str, ...]


def lex(argv: Sequence[str]) -> Lexed:
    """Takes the arguments apart, the program's name not among them. Raises Refused for what is in no table."""
    words = iter(argv)
    flags: list[tuple[str, str]] = []
    verb = ""
    while verb not in VERBS:
        word = next(words, None)
        if word is None:
            raise _no_such_verb(verb, "")
        if word == "--":
            raise Refused(Rule.FLAG, "`--` may not come before the verb", allowed="the verb first")
        if _is_flag(word):
            flags += _flags(word, words, verb)
        else:
            verb = _verb(verb, word)
    positionals: list[str] = []
    for word in words:
        if word == "--":
            positionals += words
        elif _is_flag(word):
            flags += _flags(word, words, verb)
        else:
            positionals.append(word)
    return Lexed(verb, tuple(flags), tuple(positionals))


@cache
def kinds(verb: str) -> Mapping[str, Kind]:
    """The flags that a verb takes; while the verb is not whole, those that may stand before it."""
    return {**VERBS[verb].flags, **GLOBAL} if verb in VERBS else BEFORE


def _is_flag(word: str) -> bool:
    # A lone "-" is an argument to pflag.
    return len(word) > 1 and word[0] == "-"


def _verb(before: str, word: str) -> str:
    """A verb's first or second word, by the name it has in the table."""
    if not before:
        if word in _FIRST_WORDS:
            return word
        raise _no_such_verb(before, word)
    verb = f"{before} {SUB_VERB_ALIASES.get(before, {}).get(word, word)}"
    if verb in VERBS:
        return verb
    raise _no_such_verb(before, word)


def _flags(word: str, words: Iterator[str], verb: str) -> Iterator[tuple[str, str]]:
    """The flags in one word, each with its value, which may be the next word."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        # kubectl takes _ for -, in the names of flags only.
        name = name.replace("_", "-")
        kind = _allowed(name, f"--{name}", verb)
        if not equals:
            value = "true" if kind is BOOL else _next(words, f"--{name}")
        yield name, value
        return
    short = {**SHORT, **SHORT_IN.get(verb, {})}
    for index, letter in enumerate(word[1:], start=1):
        if index > MAX_LETTERS:
            raise Refused(Rule.FORM, f"too many letters in {shown(word)}", allowed=f"{MAX_LETTERS} in one word")
        name, rest = short.get(letter, letter), word[index + 1 :]
        kind = _allowed(name, f"-{letter}", verb)
        if len(rest) > 1 and rest[0] == "=":
            yield name, rest[1:]
            return
        if kind is not BOOL:
            yield name, rest or _next(words, f"-{letter}")
            return
        yield name, "true"


def _allowed(name: str, written: str, verb: str) -> Kind:
    """The kind of a flag that this verb may have."""
    known = kinds(verb)
    if name in known:
        return known[name]
    if verb not in VERBS and (name in GLOBAL or any(name in each.flags for each in VERBS.values())):
        message = f"the flag {shown(written)} must come after the whole of the verb"
        raise Refused(Rule.FLAG, message, allowed="the verb first, then its flags")
    why = f": {DENIED[name]}" if name in DENIED else f" for {verb}" if verb else ""
    guess = "" if name in DENIED else nearest(name, known)
    allowed = " ".join(f"--{each}" for each in sorted(known))
    message = f"the flag {shown(written)} is not allowed{why}"
    raise Refused(Rule.FLAG, message, allowed=allowed, nearest=guess and f"--{guess}")


def _next(words: Iterator[str], flag: str) -> str:
    value = next(words, None)
    if value is None:
        raise Refused(Rule.VALUE, f"{flag} needs a value", allowed=f"{flag} VALUE")
    return value


def _no_such_verb(before: str, word: str) -> Refused:
    rule, known, begin = Rule.VERB, _FIRST_WORDS, ""
    allowed = ", ".join(sorted(VERBS))
    said = f"the verb {shown(word)} is not allowed" if word else "there is no verb"
    if before:
        rule, begin = Rule.SUB_VERB, f"{before} "
        known = sorted(name.partition(" ")[2] for name in VERBS if name.startswith(begin))
        allowed = ", ".join(f"{begin}{each}" for each in known)
        said = f"{begin}{shown(word)} is not allowed" if word else f"{before} needs a second word"
    if (better := VERBS_INSTEAD.get(begin + word)) is not None:
        message = f"the verb {begin}{word} is not allowed; nearest to it: {better}"
        return Refused(rule, message, allowed=allowed, next_step=f"Use {better}.")
    if word == "kubectl":
        said = "the program's name is not part of the arguments"
    guess = nearest(word, known)
    return Refused(rule, said, allowed=allowed, nearest=guess and begin + guess)
