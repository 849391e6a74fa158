import sys

import httpx

answer = httpx.get(sys.argv[1])
print(answer.text)
answer.raise_for_status()
