import asyncio
import os
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters


async def main() -> int:
    server = StdioServerParameters(
        command=sys.executable,
        args=[str(Path(__file__).with_name("mcp_server.py")), sys.argv[1]],
        env=dict(os.environ),
    )
    async with Client(server) as client:
        answer = await client.call_tool("ask", {})
        print(answer.content[0].text)
        return 1 if answer.is_error else 0


sys.exit(asyncio.run(main()))
