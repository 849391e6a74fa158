cd "$(mktemp -d)" && uv pip install --no-config --quiet --no-deps --no-cache --target . --index-url "$1/simple/" tiny && ls
