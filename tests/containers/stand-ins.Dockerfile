# Stand-ins for the images that deploy/compose.yaml takes from a registry, for a machine that reaches
# none: Debian's packages, with paths and users as in the official images. Only tests use them.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS packages
# What the release has: as with the base, updates of the release are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus prometheus-alertmanager redis-server \
    && rm -rf /var/lib/apt/lists/*
# Valkey is a fork of Redis 7.2; Debian 12 has Redis 7.0 and no Valkey.
RUN ln -s prometheus-alertmanager /usr/bin/alertmanager \
    && ln -s redis-server /usr/bin/valkey-server \
    && ln -s redis-cli /usr/bin/valkey-cli \
    && mkdir /prometheus /alertmanager /data \
    && chown 65534:65534 /prometheus /alertmanager \
    && chown 999:999 /data

FROM packages AS prometheus
WORKDIR /prometheus
USER 65534:65534
ENTRYPOINT ["/usr/bin/prometheus"]

FROM packages AS alertmanager
WORKDIR /alertmanager
USER 65534:65534
ENTRYPOINT ["/usr/bin/alertmanager"]

FROM packages AS valkey
WORKDIR /data
USER 999:999
