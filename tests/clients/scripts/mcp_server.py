"""An MCP server over stdio, as they are: without a key that looks like one it does not start."""

import os
import re
import sys

import httpx2
from mcp.server.mcpserver import MCPServer

key = os.environ.get("OPENAI_API_KEY", "")
if not re.fullmatch(r"sk-[A-Za-z0-9]{48}", key):
    sys.exit("OPENAI_API_KEY is not set, or is no key")
server = MCPServer("asking")


@server.tool()
def ask() -> str:
    answer = httpx2.get(sys.argv[1], headers={"Authorization": f"Bearer {key}"}, timeout=60)
    answer.raise_for_status()
    return answer.text


server.run("stdio")
