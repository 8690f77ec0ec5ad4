"""Every way in which the server says no: one exception each, rendered as the `Status` object that kubectl expects."""

from demo.kubernetes.objects import Obj


class ApiError(Exception):
    """The base: an HTTP code, a machine-readable reason and a message for people."""

    code = 500
    reason = "InternalError"

    def __init__(self, message: str, *, details: Obj | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}

    def as_object(self) -> Obj:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


class BadRequest(ApiError):
    """The query or the body cannot be understood."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """There is no token, or nobody knows it."""

    code, reason = 401, "Unauthorized"

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class Forbidden(ApiError):
    """No role bound to this identity allows it."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """The object does not exist, or the path names nothing."""

    code, reason = 404, "NotFound"

    @classmethod
    def path(cls) -> "NotFound":
        return cls("the server could not find the requested resource")

    @classmethod
    def object(cls, resource: str, group: str, *, name: str) -> "NotFound":
        qualified = f"{resource}.{group}" if group else resource
        details = {"name": name, **({"group": group} if group else {}), "kind": resource}
        return cls(f'{qualified} "{name}" not found', details=details)


class MethodNotAllowed(ApiError):
    """The identity may, but this cluster is a picture: nothing in it can be written."""

    code, reason = 405, "MethodNotAllowed"

    def __init__(self) -> None:
        super().__init__("the server does not allow this method on the requested resource")


class NotAcceptable(ApiError):
    """The client takes only media types that this server does not speak."""

    code, reason = 406, "NotAcceptable"

    def __init__(self) -> None:
        super().__init__("only the following media types are accepted: application/json")


class Expired(ApiError):
    """The changes since that resourceVersion are no longer kept: list again."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    """The body is longer than this server reads."""

    code, reason = 413, "RequestEntityTooLarge"


class Timeout(ApiError):
    """The resourceVersion lies in the future."""

    code, reason = 504, "Timeout"
