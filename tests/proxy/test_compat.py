"""The pin, the options and what is put in: nothing of mitmproxy's is replaced unawares."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import mitmproxy.proxy
import pytest
from mitmproxy import version

from proxy import compat


def test_only_the_pinned_minor_version_is_accepted() -> None:
    compat.check_version("12.2.3")
    compat.check_version("12.2.99")
    for other in ("12.3.0", "12.20.0", "13.0.0", "11.0.2", "12.2"):
        with pytest.raises(compat.EngineMismatch, match=r"needs mitmproxy 12\.2\.x"):
            compat.check_version(other)
    assert version.VERSION.startswith(compat.SUPPORTED + ".")


def test_every_option_that_the_core_reads_is_there() -> None:
    root = Path(mitmproxy.proxy.__file__).parent
    # mode_servers is not used; quic is never layered; proxyauth belongs to SOCKS.
    files = [p for p in root.rglob("*.py") if p.name != "mode_servers.py" and "quic" not in p.parts]
    read = set()
    for file in files:
        read |= set(re.findall(r"\boptions\.([a-z_0-9]+)", file.read_text()))
    ours = {field.name for field in dataclasses.fields(compat.CoreOptions)}
    assert read - ours <= {"proxyauth", "confdir", "listen_host", "listen_port"}


def test_the_options_that_guard_the_law() -> None:
    options = compat.CoreOptions("1", 1, 1.0)
    assert options.connection_strategy == "lazy"
    assert options.stream_large_bodies is None
    assert options.rawtcp is False
    assert options.validate_inbound_headers is True


def test_install_is_idempotent() -> None:
    import mitmproxy.proxy.layers.http as http_layers

    compat.install()
    compat.install()
    assert http_layers.HttpStream is compat.Stream
    assert compat.Stream.__mro__[1].__module__ == "mitmproxy.proxy.layers.http"
