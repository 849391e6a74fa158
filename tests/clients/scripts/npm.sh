cd "$(mktemp -d)" && echo "{}" > package.json && npm install --no-audit --no-fund --cache ./cache --registry "$1/npm/" @acme/tiny && ls node_modules/@acme
