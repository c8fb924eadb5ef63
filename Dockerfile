# For CPU, by default; `make image-test` tests only that. For CUDA, which onnxruntime-gpu 1.31 wants as
# CUDA 13, either take the libraries from PyPI:
#   --build-arg ONNXRUNTIME='onnxruntime-gpu[cuda,cudnn]'
# or from a base of your own that has them, Python 3.11 or later and its venv module, such as one made
# from a CUDA 13 image of the kind cudnn-runtime:
#   --build-arg ONNXRUNTIME=onnxruntime-gpu --build-arg BASE=...
# Which versions go together: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# The project's dependencies, with ONNXRUNTIME in the place of the one that it names for a platform.
RUN python3 -c "import tomllib; \
        project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        others = [d for d in project['dependencies'] if not d.startswith('onnxruntime')]; \
        print(*others, '${ONNXRUNTIME}', sep='\n')" >requirements.txt \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt -r requirements.txt \
    && /opt/venv/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY service service
COPY models models
# Settings by environment rather than flags, since the health check reads NTM_PORT too.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NTM_HOST=0.0.0.0 \
    NTM_PORT=50051 \
    NTM_METRICS_HOST=0.0.0.0 \
    NTM_METRICS_PORT=9464
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "service.probe"]
ENTRYPOINT ["python", "-m", "service"]
