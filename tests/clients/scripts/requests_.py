import sys

import requests

answer = requests.get(sys.argv[1])
print(answer.text)
answer.raise_for_status()
