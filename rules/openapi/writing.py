"""A pack as text: YAML that a person reads from the top, and that no description can break out of.

What a person should look at stands first, as comments; over each rule, why it has its class.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rules.openapi.pack import Draft, Remark, visible

_WIDTH = 110
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")


def write_pack(
    *,
    name: str,
    title: str,
    about: str,
    source: str,
    hosts: Sequence[str],
    inject: str | dict[str, str] | None,
    counts: dict[str, int],
    remarks: Sequence[Remark],
    rules: Sequence[Draft],
) -> str:
    """The whole file."""
    lines = list(_head(source, counts, remarks))
    lines += [f"pack: {_quoted(name)}", f"title: {_quoted(title)}", f"about: {_quoted(about)}"]
    lines.append(f"hosts: [{', '.join(_quoted(host) for host in hosts)}]")
    if inject is not None:
        lines.append(f"credential: {{inject: {_flow(inject)}}}")
    lines.append("rules:")
    for rule in rules:
        lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _head(source: str, counts: dict[str, int], remarks: Sequence[Remark]) -> Iterator[str]:
    many = ", ".join(f"{count} {risk}" for risk, count in counts.items())
    yield from _comment(
        f"Made by `keybroker policy import openapi` from {visible(source)}: {many}. Classes come "
        "from methods, names, tags, and what goes in and comes out; they are a proposal. low is "
        "allowed, medium and high are held. What no rule names is denied."
    )
    if not remarks:
        return
    yield "#"
    yield "# Look at these before you use it:"
    for remark in remarks:
        yield "#"
        yield from _comment(f"{remark.code}: {remark.sentence}", "- ", "  ")
        yield from _comment(", ".join(visible(about, 300) for about in remark.about), "    ")


def _comment(text: str, first: str = "", later: str | None = None) -> Iterable[str]:
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"# {first}",
        subsequent_indent=f"# {first if later is None else later}",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (line.rstrip() for line in lines)


def _rule(rule: Draft) -> Iterator[str]:
    if len(rule.reasons) > 1:
        yield from (f"  {line}" for line in _comment(f"{rule.risk}: {'; '.join(rule.reasons)}"))
    yield f"  - id: {_quoted(rule.id)}"
    yield f"    class: {rule.risk}"
    host = f"host: {_quoted(rule.host)}, " if rule.host else ""
    yield f"    match: {{{host}method: {rule.method}, path: {_paths(rule.paths)}}}"
    if rule.excepts:
        yield f"    except: {{{host}method: {rule.method}, path: {_paths(rule.excepts)}}}"
    yield f"    summary: {_quoted(rule.summary)}"
    if rule.impact:
        yield f"    impact: {_quoted(rule.impact)}"
        yield f"    undo: {json.dumps(rule.undo)}"
    if rule.excepts:
        yes = _test(rule, rule.sample) if rule.sample else ""
        no = ", ".join(_test(rule, path) for path in rule.others)
        yield f"    tests: {{match: [{yes}], no_match: [{no}]}}"


def _test(rule: Draft, path: str) -> str:
    if rule.host:
        return f"{{method: {rule.method}, url: {_quoted(f'https://{rule.host}{path}')}}}"
    return f"{{method: {rule.method}, path: {_quoted(path)}}}"


def _paths(paths: Sequence[str]) -> str:
    return _quoted(paths[0]) if len(paths) == 1 else f"[{', '.join(map(_quoted, paths))}]"


def _flow(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return f"{{{', '.join(f'{key}: {_quoted(item)}' for key, item in value.items())}}}"


def _quoted(text: str) -> str:
    """The text as a scalar: bare if it is a plain word or path, else in double quotes, for which
    JSON's spelling of text without control characters is YAML's too."""
    if _BARE.fullmatch(text) and text.lower() not in ("true", "false", "null"):
        return text
    return json.dumps(text, ensure_ascii=False)
