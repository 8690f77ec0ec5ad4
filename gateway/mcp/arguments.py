"""What the tools are given, as models write it: checked, and put into the words of the REST contract."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.argv import Unacceptable, build_argv, split_command
from gateway.callers import Caller
from gateway.command_models import CommandBody
from gateway.cursors import MAX_CURSOR_CHARS
from gateway.fanout_models import MAX_CLUSTERS, FanoutBody
from gateway.models import Argument, Text
from gateway.selectors import MAX_SELECTOR_CHARS
from gateway.shaping_models import MAX_SHOWN, ShapingFields
from openline.errors import short
from openline.limits import DEFAULT_TIMEOUT_S, MAX_ARGUMENTS, MAX_ARGV_BYTES, MAX_TIMEOUT_S

# An answer has its output twice, as text and in fields, and is one event, of which clients take 1 MiB. In JSON a
# character is up to 12 bytes: so many always fit, with room for what is said beside them.
MAX_PAGE_CHARS = 40_000
# Some 5,000 tokens: more is rarely wanted, and can be had by the cursor.
PAGE_CHARS = 20_000
# Of one cluster of many, where its output is to leave room for what happened in the others.
MAX_FANOUT_PAGE_CHARS = MAX_PAGE_CHARS // 2
FANOUT_PAGE_CHARS = 4_000
# Below the minute after which clients give a call up that says nothing, as a rule.
LONGEST_WAIT_S = 50.0
WAIT_S = 20.0
# What a shell would act on. There is none, and the model had better be told so than that there is no pod called `|`.
_SHELL = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>/dev/null"})

Name = Annotated[Text, Field(min_length=1, max_length=253)]
# Of openline, which whoever starts the agent has made: see docs/rest.md.
SessionId = Annotated[Text, Field(max_length=200)]
# More than there may be is not refused: the rest is on the next page.
PageChars = Annotated[int, Field(ge=1, le=MAX_SHOWN), AfterValidator(lambda chars: min(chars, MAX_PAGE_CHARS))]
FanoutPageChars = Annotated[PageChars, AfterValidator(lambda chars: min(chars, MAX_FANOUT_PAGE_CHARS))]


class Arguments(BaseModel):
    """Of any tool. What a model makes up is refused by its name, so that it can do without."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Raises Unacceptable. What is null or empty is as good as not given: models fill in every field they see."""
        said = {name: value for name, value in given.items() if value not in (None, "", [])}
        try:
            return cls.model_validate(said)
        except ValidationError as mistakes:
            first = mistakes.errors(include_input=False, include_url=False)[0]
            # What there is no such argument as may be called anything.
            field = short(".".join(map(str, first["loc"])))
            if first["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                raise Unacceptable(field, f"there is no such argument; there are {known}") from None
            raise Unacceptable(field, first["msg"].removeprefix("Value error, ")) from None


class Words(Arguments):
    """A kubectl command."""

    # Of a shell, for the output.
    instead: ClassVar[str] = "give one kubectl command"

    command: Annotated[Text, Field(max_length=MAX_ARGV_BYTES)] | None = None
    argv: Annotated[list[Argument], Field(max_length=MAX_ARGUMENTS)] | None = None
    namespace: Name | None = None
    timeout_seconds: Annotated[float, Field(ge=1, le=MAX_TIMEOUT_S, allow_inf_nan=False)] = DEFAULT_TIMEOUT_S
    # A run of its own, whoever asks the same. One word instead of an age: models fill in numbers that they see.
    fresh: bool = False

    def asked_by(self, caller: Caller) -> Caller:
        """The caller, with what the command says of how old its answer may be: the header has no say in that here.

        Some clients send `Cache-Control: no-cache` along with whatever they ask.
        """
        return replace(caller, max_age_s=0.0 if self.fresh else None)

    def words(self) -> list[str]:
        """Raises Unacceptable."""
        if (self.command is None) == (self.argv is None):
            raise Unacceptable("command", "give either command or argv")
        words = split_command(self.command) if self.command is not None else list(self.argv or ())
        if self.argv is not None and words[0] == "kubectl":
            words = words[1:]
        if not words:
            raise Unacceptable("argv", "there is no command in it")
        if self.argv is not None and len(words[0].split()) > 1:
            raise Unacceptable("argv", 'is one word each, as in ["get", "pods"]; a whole line is a command')
        if used := next((word for word in words if word in _SHELL), None):
            raise Unacceptable("command", f"there is no shell for {used!r}: {self.instead}")
        return build_argv(words[0], words[1:], namespace=self.namespace, is_explicit=True, extra_args=())


class Command(Words, ShapingFields):
    """The same, and what of its output is wanted."""

    instead = "give one kubectl command, and grep, tail or jsonpath for its output"

    def shaping_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ShapingFields.model_fields}


class KubectlArguments(Command):
    cluster: Name
    session_id: SessionId | None = None
    max_output_chars: PageChars | None = PAGE_CHARS

    def body(self) -> CommandBody:
        """Raises Unacceptable."""
        return CommandBody(
            argv=self.words(),
            timeout_seconds=self.timeout_seconds,
            session_id=self.session_id,
            **self.shaping_fields(),
        )


class FanoutArguments(Command):
    clusters: Annotated[list[Name], Field(max_length=MAX_CLUSTERS)] | None = None
    selector: Annotated[Text, Field(max_length=MAX_SELECTOR_CHARS)] | None = None
    max_output_chars: FanoutPageChars | None = FANOUT_PAGE_CHARS

    def body(self) -> FanoutBody:
        """Raises Unacceptable."""
        return FanoutBody(
            argv=self.words(),
            timeout_seconds=self.timeout_seconds,
            clusters=self.clusters,
            selector=self.selector,
            **self.shaping_fields(),
        )


class ClustersArguments(Arguments):
    selector: Annotated[Text, Field(max_length=MAX_SELECTOR_CHARS)] | None = None
    after: Name | None = None


class ResultArguments(Arguments, ShapingFields):
    command_id: Annotated[Text, Field(max_length=200)] | None = None
    cursor: Annotated[Text, Field(max_length=MAX_CURSOR_CHARS)] | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False)] = WAIT_S
    max_output_chars: PageChars | None = PAGE_CHARS


class CancelArguments(Arguments):
    command_id: Annotated[Text, Field(max_length=200)]
