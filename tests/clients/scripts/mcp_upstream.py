"""The upstream's MCP server, over streamable HTTP at the port that is given."""

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("greeting")


@server.tool()
def hello() -> str:
    return "hello from upstream"


server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
