import asyncio
import sys

from mcp import Client


async def main() -> int:
    async with Client(sys.argv[1] + "/mcp") as client:
        answer = await client.call_tool("hello", {})
        print(answer.content[0].text)
        return 1 if answer.is_error else 0


sys.exit(asyncio.run(main()))
