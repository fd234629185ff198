# One image for all commands of halffull: operator, router, simulated engine. Runs as any user, on a read-only root.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends gcc libc6-dev >/dev/null
WORKDIR /source
# What is built with sees what runs, whose types the compiler reads, but is no part of it.
RUN python -m venv --without-pip /opt/halffull && python -m venv --without-pip /opt/build \
 && echo /opt/halffull/lib/python*/site-packages > "$(echo /opt/build/lib/python*/site-packages)/halffull.pth"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/halffull/bin/python
# The dependencies alone first: this layer is built anew only when they change.
COPY pyproject.toml constraints.txt ./
# Optional parts, by their names in pyproject.toml: `--build-arg EXTRAS="kv-events tokenizer otel"` adds spans.
ARG EXTRAS="kv-events tokenizer"
RUN python -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
      extras = project["optional-dependencies"]; \
      print(*project["dependencies"], *(each for name in sys.argv[1:] for each in extras[name]), sep="\n")' \
      ${EXTRAS} > requirements.txt \
 && pip install --no-compile --only-binary=:all: -c constraints.txt -r requirements.txt
# Compiled here, as nothing can be written later; but not the typed API of kubernetes, of which next to nothing is loaded.
RUN python -m compileall -q -x 'kubernetes/(aio/)?client/(api|models)/' /opt/halffull/lib
RUN PIP_PYTHON=/opt/build/bin/python pip install --no-compile -c constraints.txt hatchling hatch-mypyc
COPY README.md LICENSE ./
COPY operator operator
# The data path is compiled to machine code; `--build-arg COMPILED=false` leaves it as it is.
ARG COMPILED=true
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=${COMPILED} PIP_PYTHON=/opt/build/bin/python \
      pip wheel --no-build-isolation --no-deps --wheel-dir wheels . \
 && pip install --no-compile --no-deps wheels/*.whl \
 && python -m compileall -q /opt/halffull/lib/python*/site-packages/halffull

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title=halffull org.opencontainers.image.licenses=Apache-2.0
RUN pip --disable-pip-version-check --no-cache-dir uninstall --quiet --yes --root-user-action=ignore pip \
 && rm -rf /usr/local/lib/python*/ensurepip
COPY --from=build /opt/halffull /opt/halffull
ENV PATH=/opt/halffull/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["halffull"]
