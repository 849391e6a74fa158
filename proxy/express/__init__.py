"""The express lane: plain HTTP/1.1 calls in a tunnel, without mitmproxy's layers in between.

Most calls of agents are the simplest there are, and what the layers do for them costs several
times what the decision does. Here such a call goes from the socket to the middle and back in a few
steps. Whatever is not of the plainest kind (HTTP/2, an upgrade, trailers, a chunked or large body,
an odd head) is handed over, with all that was read of it, to the full engine (`proxy.connection`),
which alone knows what to do or say; so there is one place for every refusal.
"""
