import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1])  # the key is ANTHROPIC_API_KEY
answer = client.messages.create(
    model="tiny", max_tokens=10, messages=[{"role": "user", "content": "Say hello."}]
)
print(answer.content[0].text)
