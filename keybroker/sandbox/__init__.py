"""`keybroker run --sandbox`: a command in namespaces of its own, that reaches only the proxy.

A view (view.py) says which paths the command sees and how; a back-end builds it: bubblewrap, or
Keybroker itself by unshare(2). Inside, `inner` opens a listener and hands it out: a socket belongs
to the network it was made in, whoever holds it, so the only way out is held by `run` (relay.py).

`inner` and `unshared` run in an interpreter of their own and import nothing but the standard
library and each other.
"""
