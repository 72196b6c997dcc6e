#!/bin/sh
# Installs the locked packages and Penstock into a virtual environment.
#   build.sh SOURCE TARGET
# SOURCE is a checkout, TARGET the folder of the environment, which must not exist. The embedded servers and the local
# model server are left out: an image that cannot start them cannot embed a corpus with a toy by mistake. So is pip.
set -eu
source_dir=$1
target=$2
python="${PYTHON:-python3}"

if [ -e "$target" ]; then
    echo "$target exists already" >&2
    exit 2
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$python" -m venv "$build/tools"
"$python" -m venv --without-pip "$target"
pip() { "$build/tools/bin/python" -m pip --disable-pip-version-check "$@"; }

# The locks with their hashes: exactly these versions, and only what serving and building need.
pip --python "$target/bin/python" install --quiet --only-binary :all: --require-hashes \
    --requirement "$source_dir/infra/deploy/requirements-serve.lock"
pip install --quiet --only-binary :all: --require-hashes --requirement "$source_dir/infra/deploy/requirements-build.lock"
for part in cli infra producers schemas workers pyproject.toml README.md LICENSE; do
    cp -R "$source_dir/$part" "$build/"
done
rm -rf "$build/infra/local"
pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$build/wheel" "$build"
pip --python "$target/bin/python" install --quiet --no-deps "$build"/wheel/*.whl
"$target/bin/penstock" --help > /dev/null
echo "built $target"
