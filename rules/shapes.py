"""Environment variables for credentials: their names, and the shapes of their placeholders.

A placeholder looks like a key, so that programs which check their key at start are content. It is
no secret and is never replaced by one: the injector fills the credential's slot and nothing else.
"""

from __future__ import annotations

import math
import re
import string

DEFAULT_SHAPE = "kb_placeholder_{hex:32}"
MIN_BITS = 64
"""What a shape must leave open, so that no text holds a placeholder by chance."""
MAX_LENGTH = 200
"""Characters of a placeholder."""
ALPHABETS = {
    "hex": string.digits + "abcdef",
    "digits": string.digits,
    "upper": string.ascii_uppercase + string.digits,
    "alnum": string.ascii_letters + string.digits,
}
_PART = re.compile(r"\{([a-z]+):([1-9][0-9]{0,2})\}")
# These have one spelling in URLs, forms, JSON and headers (RFC 3986's unreserved characters).
_LITERAL = re.compile(r"[A-Za-z0-9_.-]*")

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
_RESERVED = frozenset(
    [
        "CDPATH", "EDITOR", "ENV", "HOME", "HOSTALIASES", "HOSTNAME", "IFS", "LANG", "LANGUAGE",
        "LOCALDOMAIN", "LOGNAME", "MAIL", "OLDPWD", "PAGER", "PATH", "PS1", "PS2", "PS3", "PS4",
        "PWD", "REQUEST_METHOD", "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "USER", "VISUAL",
        "WGETRC",
    ]
)  # fmt: skip
"""Names that change what programs do."""
_FAMILIES = (
    "BASH", "BUN_", "BUNDLE_", "CARGO_", "CGO_", "CURL_", "DENO_", "DOCKER_", "DYLD_", "ELECTRON_",
    "GCONV_", "GIT_", "GLIBC_", "GODEBUG", "GOFLAGS", "GRPC_", "JAVA_", "JDK_", "KRB5", "LC_",
    "LD_", "LESS", "LOCPATH", "MALLOC_", "NIX_", "NODE_", "NPM_", "OPENSSL_", "PERL", "PIP_",
    "PROMPT", "PYTHON", "RES_", "RUBY", "RUST", "SOCKS_", "SSH_", "SSL", "SUDO_", "UV_",
    "XDG_", "ZDOTDIR",
)  # fmt: skip
_ENDINGS = (
    "PROXY", "PATH", "HOME", "DIR", "FILE", "CONFIG", "OPTIONS", "OPTS", "FLAGS", "BUNDLE",
    "CERT", "CERTS", "CAINFO", "CAFILE", "PRELOAD", "COMMAND", "ASKPASS", "VERIFY", "RC", "URL",
    "HOST", "PORT",
)  # fmt: skip
"""Ends of names that tell a program where to go or whom to trust, not who it is."""
_KEYS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_OURS = ("KEYBROKER_", "VAULT_", "BAO_")


def parse_variable(text: str) -> str:
    """The name of a variable that may hold a placeholder. Raises ValueError.

    A policy is written by an administrator; this keeps them from setting by mistake what would
    lead the agent's programs past the proxy or make them load something.
    """
    if not _VARIABLE.fullmatch(text):
        raise ValueError(
            f'"{text[:80]}" is not a name for a variable; write one such as STRIPE_API_KEY'
        )
    odd = (
        text.startswith(_OURS)
        or text in _RESERVED
        or text.endswith(_ENDINGS)
        or (text.startswith(_FAMILIES) and not text.endswith(_KEYS))
    )
    if odd:
        raise ValueError(
            f"{text} changes what programs do, so it cannot hold a placeholder; use the variable in"
            " which the agent's programs look for the key"
        )
    return text


def parse_shape(text: str) -> str:
    """Literal text with parts `{hex:N}`, `{digits:N}`, `{upper:N}`, `{alnum:N}`; or ValueError."""
    if not _LITERAL.fullmatch(_PART.sub("", text)):
        raise ValueError(
            "a shape is letters, digits and _ . - with parts such as {hex:24}, {digits:12},"
            " {upper:16} or {alnum:32}"
        )
    bits, length = 0.0, len(_PART.sub("", text))
    for kind, count in _PART.findall(text):
        if kind not in ALPHABETS:
            raise ValueError(f"{{{kind}:{count}}} is unknown; there are {', '.join(ALPHABETS)}")
        bits += int(count) * math.log2(len(ALPHABETS[kind]))
        length += int(count)
    if bits < MIN_BITS:
        raise ValueError("too little is left open; use at least {hex:16} or {alnum:12}")
    if length > MAX_LENGTH:
        raise ValueError(f"a placeholder has at most {MAX_LENGTH} characters")
    return text


def fill_shape(shape: str, number: int) -> str:
    """The shape with its open parts taken from `number`, which should be large and random."""

    def part(found: re.Match[str]) -> str:
        nonlocal number
        alphabet, filled = ALPHABETS[found[1]], ""
        for _ in range(int(found[2])):
            number, index = divmod(number, len(alphabet))
            filled += alphabet[index]
        return filled

    return _PART.sub(part, shape)
