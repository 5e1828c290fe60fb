# One image for every role: `docker run fuzzfarm worker`, `docker run fuzzfarm batches`, ...
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY producer producer
COPY worker worker
COPY shared shared
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# Programs that subprocess jobs use, such as "binutils file"; PIP_PACKAGES: what your targets import.
ARG APT_PACKAGES=""
ARG PIP_PACKAGES=""
RUN if [ -n "$APT_PACKAGES" ]; then \
        apt-get update && apt-get install -y --no-install-recommends $APT_PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl $PIP_PACKAGES && rm -r /wheels
RUN useradd --create-home --uid 10001 fuzzfarm
USER fuzzfarm
# The module path is /code and site-packages, not the working directory: what a job writes there is never imported.
ENV PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH=/code
WORKDIR /tmp
ENTRYPOINT ["fuzzfarm"]
CMD ["--help"]
