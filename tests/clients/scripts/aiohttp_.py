import asyncio
import sys

import aiohttp


async def main() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print(await answer.text())
        answer.raise_for_status()


asyncio.run(main())
