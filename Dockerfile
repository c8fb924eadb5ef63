# The default is for CPU. onnxruntime-gpu 1.31 needs CUDA 13. Either take its libraries from PyPI:
#   --build-arg ONNXRUNTIME='onnxruntime-gpu[cuda,cudnn]'
# or from a base image of your own with CUDA 13, cuDNN, Python 3.11 or later and its module venv:
#   --build-arg ONNXRUNTIME=onnxruntime-gpu --build-arg BASE=...
# Versions that fit: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
WORKDIR /app
COPY constraints.txt pyproject.toml /build/
# The dependencies of the server and of these extras. ONNXRUNTIME replaces the platform's own.
# Signed tokens (NTM_JWT_KEYS) need the extra jwt, 17 MB more. Without it, a server with this setting
# refuses to start and says so. To add it: --build-arg EXTRAS="otel redis jwt"
ARG EXTRAS="otel redis"
# Triton's client, which only tests need, holds ml-dtypes at 0.5, which is 23 MB larger.
RUN sed -i 's/^ml-dtypes==.*/ml-dtypes==0.6.0/' /build/constraints.txt \
    && python3 -c "import tomllib; \
        project = tomllib.load(open('/build/pyproject.toml', 'rb'))['project']; \
        others = [d for d in project['dependencies'] if not d.startswith(('onnxruntime', 'ntm-client'))]; \
        extras = [d for e in '${EXTRAS}'.split() for d in project['optional-dependencies'][e]]; \
        print(*others, *extras, '${ONNXRUNTIME}', sep='\n')" >/build/requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-compile \
        --constraint /build/constraints.txt -r /build/requirements.txt \
    && /opt/venv/bin/pip uninstall --yes pip setuptools
# Serving never loads these: tests and their data, tools to train and to convert models.
RUN find /opt/venv/lib -type d \( -name tests -o -path '*/onnx/backend' \
    -o -regex '.*/onnxruntime/\(datasets\|quantization\|tools\|transformers\)' \) \
    -prune -exec rm -rf {} +
# The stubs of the API, without the client library that is beside them, and the server.
COPY client/ntm ntm
COPY service service
COPY models models
# Bytecode of everything, because the file system is read-only later. Unchecked, because a builder may
# change the times of files.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib ntm service

FROM ${BASE}
ARG BASE
ARG VERSION
ARG REVISION
# A server installs nothing, so there is no pip and nothing that can restore it.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
    /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
# Variables instead of flags, because the health check reads NTM_HOST and NTM_PORT too. With
# PYTHONPATH, the probe also runs from other working directories. With a GPU, NVIDIA's runtime adds the
# driver's libraries for CUDA and for NVML, which measures it. The command or the device plugin that
# starts a container says which GPUs it gets, so NVIDIA_VISIBLE_DEVICES is not set here.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NTM_HOST=0.0.0.0 \
    NTM_PORT=50051 \
    NTM_METRICS_HOST=0.0.0.0 \
    NTM_METRICS_PORT=9464 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="NTM service" \
    org.opencontainers.image.description="Serves Neural Turing Machines over gRPC, with a memory for each session" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE}"
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "service.probe"]
ENTRYPOINT ["python", "-m", "service"]
