"""One worker of the proxy: puts the engine, the pipeline and their parts together, and drains them.

Workers share nothing but the store. A worker dies with `up` and is replaced by it.
"""

from __future__ import annotations


