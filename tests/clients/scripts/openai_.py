import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1")  # the key is OPENAI_API_KEY
answer = client.chat.completions.create(
    model="tiny", messages=[{"role": "user", "content": "Say hello."}]
)
print(answer.choices[0].message.content)
