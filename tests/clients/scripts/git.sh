# Clones, and pushes 20 MB of noise back.
set -e
cd "$(mktemp -d)"
git clone --quiet "$1/repository.git" clone
cd clone
head -c 20000000 /dev/urandom > noise
git add noise
git -c user.name=bot -c user.email=bot@example.com commit --quiet --message noise
# Over HTTP/2 git can hang in a push of this size, whoever serves it (certs/environment.py); without
# `keybroker run` nobody else says so.
git -c http.version=HTTP/1.1 push --quiet origin HEAD:refs/heads/pushed-$$
