cd "$(mktemp -d)" && pip download --quiet --no-deps --no-cache-dir --index-url "$1/simple/" tiny && ls
