"""URLs of gateways, as they are given to programs."""

from urllib.parse import SplitResult, urlsplit


def read_http_url(url: str, *, credentials: str) -> SplitResult:
    """Raises ValueError; `credentials` says where those go that are in the URL, where they would be shown."""
    wrong = ValueError("expected http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"has no room for credentials: {credentials}")
    return parts
